"""What a run must know to go on, besides its arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best network so far.

    Attributes:
      figure: its value of `eval.best_by`; None if that was undefined.
      step: when.
      weights: `plain` or `ema`.
    """

    figure: float | None
    step: int
    weights: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; saved with its checkpoints as JSON.

    Attributes:
      best: None before the first evaluation.
      bad_images: numbers of the training records that could not be read.
      evaluated: the step of the last evaluation.
      stopped: whether the stopping rule has ended the run.
      states: of the stopping rule (`stop`) and of the schedules that react, by hyperparameter.
    """

    best: Best | None = None
    bad_images: tuple[int, ...] = ()
    evaluated: int = 0
    stopped: bool = False
    states: dict[str, Any] = field(default_factory=dict)


def bad_in_any_process(numbers: Sequence[int], count: int) -> tuple[int, ...]:
    """Returns the numbers of the bad records that any process met, sorted, each once.

    Args:
      numbers: those of this process.
      count: of all records.
    """
    bad = np.zeros(count, bool)
    bad[list(numbers)] = True
    if jax.process_count() > 1:
        bad = multihost_utils.process_allgather(bad).any(axis=0)
    return tuple(np.flatnonzero(bad).tolist())
