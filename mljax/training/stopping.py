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


class SmoothedImprovement:
    """Ends a run when a score has not risen above its smoothed best for some evaluations.

    The score is a figure's hundredth. The smoothed best starts at 0 and becomes 0.8 times the score
    plus 0.2 times itself where the score, rounded to four decimals, is above it; the count of
    evaluations then starts anew. So it lags behind the best: a score between the two is no failure.
    A score of 1, by 1.1e-4, ends the run at once.

    Prokofiev and Sovrasov 2022, https://arxiv.org/abs/2209.06585; tosfaq/deep-object-reid (branch
    multilabel-paper) torchreid/engine/image/multilabel.py. Which network is kept is
    `eval.best_by`'s to say, where the first of equals stays; the original keeps the last, of scores
    rounded to four decimals.

    Differs from the reference: an undefined figure counts as 0; it has none.

    Args:
      figure: of the evaluators, in percent; higher is better.
      patience: the evaluation without a rise that ends the run, counted from 1.
      warmup: evaluations at the start that are not counted, while the learning rate rises. The
        original's 60 epochs with a rise of 12 have 11.

    Attributes:
      state: the smoothed best, evaluations since it rose, and evaluations in all.

    Raises:
      ValueError: for a patience below 1 or a negative warm-up.
    """

    def __init__(self, *, figure: str = "mAP", patience: int = 5, warmup: int = 0) -> None:
        if patience < 1:
            raise ValueError(f"smoothed_improvement: patience must be 1 or more, got {patience}")
        if warmup < 0:
            raise ValueError(f"smoothed_improvement: warmup must be 0 or more, got {warmup}")
        self._figure, self._patience, self._warmup = figure, patience, warmup
        self.state: dict[str, Any] = {"smoothed": 0.0, "since": 0, "evaluations": 0}

    def update(self, figures: Mapping[str, Any]) -> bool:
        """Returns whether the run is to end.

        Raises:
          ValueError: if no evaluator gives the figure.
        """
        score = (find_figure(figures, self._figure) or 0.0) / 100
        smoothed, since, evaluations = (
            self.state[name] for name in ("smoothed", "since", "evaluations")
        )
        rounded = round(score, 4)
        # Parity: numpy's isclose, whose relative tolerance is 1e-5.
        perfect = abs(rounded - 1) <= 1e-4 + 1e-5
        if not perfect and rounded > smoothed:
            smoothed, since = 0.8 * score + 0.2 * smoothed, 0
        elif not perfect and evaluations >= self._warmup:
            since += 1
        self.state = {"smoothed": smoothed, "since": since, "evaluations": evaluations + 1}
        return perfect or since >= self._patience


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


RULES = table(
    "stopping rule",
    {"no_improvement": NoImprovement, "smoothed_improvement": SmoothedImprovement},
)
