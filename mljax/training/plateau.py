"""The rate of `reduce_on_plateau`: the one schedule with a state."""

from collections.abc import Callable, Mapping
from typing import Any

from mljax.metrics.figures import find_figure


class Plateau:
    """The rate of `reduce_on_plateau`.

    Attributes:
      state: the rate, the best figure and the counters, as JSON.
    """

    def __init__(
        self,
        peak_lr: float,
        figure: str,
        improves: Callable[[float, float], bool],
        *,
        factor: float,
        patience: int,
        cooldown: int,
        min_lr: float,
        eps: float,
    ) -> None:
        self.state: dict[str, Any] = {"rate": peak_lr, "best": None, "bad": 0, "cooldown": 0}
        self._figure, self._improves = figure, improves
        self._factor, self._patience, self._cooldown = factor, patience, cooldown
        self._min_lr, self._eps = min_lr, eps

    def __call__(self, step: int) -> float:
        """Returns the rate, which no step changes."""
        return self.state["rate"]

    def update(self, figures: Mapping[str, Any]) -> None:
        """Takes note of an evaluation.

        Raises:
          ValueError: if no evaluator gives the figure.
        """
        value = find_figure(figures, self._figure)
        rate, best, bad, cooldown = (self.state[k] for k in ("rate", "best", "bad", "cooldown"))
        if value is not None and (best is None or self._improves(value, best)):
            best, bad = value, 0
        else:
            bad += 1
        if cooldown > 0:
            cooldown, bad = cooldown - 1, 0
        if bad > self._patience:
            lower = max(rate * self._factor, self._min_lr)
            rate = lower if rate - lower > self._eps else rate
            cooldown, bad = self._cooldown, 0
        self.state = {"rate": rate, "best": best, "bad": bad, "cooldown": cooldown}
