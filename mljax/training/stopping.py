"""Rules that end a run after an evaluation.

A rule has `update(figures) -> bool`, called after every evaluation with the figures of the better
weights, and `state`, a dict that JSON holds, which is saved with the run and set on resume.
"""

from collections.abc import Mapping
from typing import Any

from mljax.config.part import table
from mljax.metrics.figures import find_figure


class NoImprovement:
    """Ends a run when a figure has not been better than its best for some evaluations in a row.

    Args:
      figure: of the evaluators; higher is better.
      patience: evaluations without improvement that are tolerated, at least 0.
      min_delta: what is not better by more than this is no improvement.

    Attributes:
      state: the best figure, and the evaluations since.

    Raises:
      ValueError: for a negative patience.
    """

    def __init__(self, *, figure: str = "mAP", patience: int, min_delta: float = 0.0) -> None:
        if patience < 0:
            raise ValueError(f"no_improvement: patience must be 0 or more, got {patience}")
        self._figure, self._patience, self._min_delta = figure, patience, min_delta
        self.state: dict[str, Any] = {"best": None, "since": 0}

    def update(self, figures: Mapping[str, Any]) -> bool:
        """Returns whether the run is to end.

        Raises:
          ValueError: if no evaluator gives the figure.
        """
        value, best = find_figure(figures, self._figure), self.state["best"]
        if value is not None and (best is None or value > best + self._min_delta):
            self.state = {"best": value, "since": 0}
        else:
            self.state = {"best": best, "since": self.state["since"] + 1}
        return self.state["since"] > self._patience


def update_rules(
    rules: Mapping[str, Any], figures: Mapping[str, Any]
) -> tuple[bool, dict[str, Any]]:
    """Tells rules of an evaluation.

    Args:
      rules: schedules that react, by hyperparameter, and perhaps the stopping rule as `stop`.
      figures: of the better weights.

    Returns:
      Whether the run is to end, and the states of all rules by name.
    """
    answers = {name: rule.update(figures) for name, rule in rules.items()}
    return bool(answers.get("stop", False)), {name: rule.state for name, rule in rules.items()}


def restore_rules(rules: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Gives rules the states that were saved with a run."""
    for name, rule in rules.items():
        if name in states:
            rule.state = states[name]


RULES = table("stopping rule", {"no_improvement": NoImprovement})
