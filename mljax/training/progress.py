"""What a run must know to go on, besides its arrays."""

from collections.abc import Callable, Iterable, Sequence
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
      bad_images: names of the training images that could not be read, since their numbers change
        with the list of images.
      evaluated: the step of the last evaluation.
      stopped: whether the stopping rule has ended the run.
      states: of the stopping rule (`stop`) and of the schedules that react, by hyperparameter.
    """

    best: Best | None = None
    bad_images: tuple[str, ...] = ()
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


def name_all(
    known: Iterable[str], numbers: Iterable[int], name_of: Callable[[int], str]
) -> tuple[str, ...]:
    """Returns the names of bad images, sorted, each once.

    Args:
      known: names from before.
      numbers: of records that were met since.
      name_of: number to path; bytes in it that are no UTF-8 are written as escapes.
    """
    names = (name_of(n).encode("utf-8", "backslashreplace").decode("utf-8") for n in numbers)
    return tuple(sorted({*known, *names}))
