"""Hyperparameters over the steps of a run.

A schedule is called as `schedule(peak_lr, total_steps, steps_per_epoch, **kwargs)` and returns
`{hyperparameter: f(step)}` with the step counted from 0. `learning_rate` is always among them; any
other, such as `beta1`, takes the place of the algorithm's own argument. A function with `state` and
`update(figures)` reacts to evaluations; its state is saved with the run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from mljax.config.part import Part, resolved, table
from mljax.training.plateau import Plateau

Schedule = Mapping[str, Callable[[int], float]]


def hyperparameters(schedule: Schedule, step: int) -> dict[str, float]:
    """Returns the hyperparameters of a step, counted from 0."""
    return {name: float(value(step)) for name, value in schedule.items()}


def one_cycle(
    peak_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    epochs: float | None = None,
    warmup_fraction: float = 0.2,
    initial_factor: float = 25.0,
    final_factor: float = 1e4,
    cycle_beta1: bool = True,
    cycle_momentum: bool = False,
) -> Schedule:
    """Returns torch's two-phase cosine OneCycleLR.

    The rate goes from peak / initial_factor to the peak at step `warmup_fraction * length - 1`,
    then to the first rate / final_factor at the last step, and stays there.

    Source: `torch.optim.lr_scheduler.OneCycleLR`; Smith and Topin, Super-Convergence,
    https://arxiv.org/abs/1708.07120.

    Args:
      peak_lr: the highest rate.
      total_steps: of the run.
      steps_per_epoch: of the run.
      epochs: length of the cycle, which may be more than are trained; None is the whole run.
      warmup_fraction: share of the cycle in which the learning rate rises, from 0 to 1.
      initial_factor: the first rate is the peak divided by this.
      final_factor: the last one is the first divided by this.
      cycle_beta1: let Adam's beta1 go 0.95 -> 0.85 -> 0.95 against the learning rate.
      cycle_momentum: let SGD's momentum go so; for torch_sgd set `cycle_beta1=False` too.

    Raises:
      ValueError: for numbers out of their range.
    """
    if not 0 <= warmup_fraction <= 1:
        raise ValueError(f"one_cycle: warmup_fraction must be from 0 to 1, got {warmup_fraction}")
    _check_positive("one_cycle", initial_factor=initial_factor, final_factor=final_factor)
    if epochs is not None:
        _check_positive("one_cycle", epochs=epochs)
        total_steps = max(round(epochs * steps_per_epoch), 1)
    start = peak_lr / initial_factor
    cycle = _Cycle(total_steps, warmup_fraction)
    rates = {"learning_rate": lambda step: cycle.value(step, start, peak_lr, start / final_factor)}
    cycled = {"beta1": cycle_beta1, "momentum": cycle_momentum}
    for name in (name for name, wanted in cycled.items() if wanted):
        rates[name] = lambda step: cycle.value(step, 0.95, 0.85, 0.95)
    return rates


class _Cycle:
    """A rise and a fall along half cosines."""

    def __init__(self, total_steps: int, warmup_fraction: float) -> None:
        self._turn = warmup_fraction * total_steps - 1
        self._last = total_steps - 1

    def value(self, step: int, start: float, middle: float, end: float) -> float:
        if step <= self._turn:
            rise = step / self._turn if self._turn > 0 else 1.0
            return _cosine(start, middle, rise)
        return _cosine(middle, end, (step - self._turn) / max(self._last - self._turn, 1e-12))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def warmup_cosine(
    peak_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = 0.0,
    initial_factor: float = 0.0,
    final_factor: float = 0.0,
) -> Schedule:
    """Returns a linear rise to the peak, then half a cosine down to the end of the run.

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983, equation 5 (one cycle).

    Args:
      peak_lr: the highest rate.
      total_steps: of the run.
      steps_per_epoch: of the run.
      warmup_epochs: length of the rise.
      initial_factor: the rise starts at this share of the peak.
      final_factor: the cosine ends at this share of the peak.

    Raises:
      ValueError: for a negative number.
    """
    _check_not_negative(
        "warmup_cosine",
        warmup_epochs=warmup_epochs,
        initial_factor=initial_factor,
        final_factor=final_factor,
    )
    warmup = warmup_epochs * steps_per_epoch

    def rate(step: int) -> float:
        if step < warmup:
            return peak_lr * (initial_factor + (1 - initial_factor) * step / warmup)
        progress = (step - warmup) / max(total_steps - warmup, 1)
        return _cosine(peak_lr, peak_lr * final_factor, progress)

    return {"learning_rate": rate}


def multi_step(
    peak_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    milestones: Sequence[float],
    factor: float = 0.1,
) -> Schedule:
    """Returns torch's MultiStepLR: the rate is multiplied by a factor after some epochs.

    Source: `torch.optim.lr_scheduler.MultiStepLR`, stepped once an epoch.

    Args:
      peak_lr: the first rate.
      total_steps: of the run.
      steps_per_epoch: of the run.
      milestones: the epochs after which the rate changes; fractions are allowed.
      factor: of each change.

    Raises:
      ValueError: for a factor that is not positive, or a negative milestone.
    """
    del total_steps
    _check_positive("multi_step", factor=factor)
    _check_not_negative("multi_step", milestones=min(milestones, default=0.0))
    turns = [round(epoch * steps_per_epoch) for epoch in milestones]
    return {"learning_rate": lambda step: peak_lr * factor ** sum(step >= turn for turn in turns)}


def epoch_cosine(
    peak_lr: float, total_steps: int, steps_per_epoch: int, *, final_factor: float = 1e-3
) -> Schedule:
    """Returns half a cosine in steps of an epoch, the first of which is below the peak already.

    Source: `adjust_learning_rate` in HobbitLong/SupContrast `util.py` with `cosine`; its last rate
    is the cube of its factor of decay times the peak.

    Args:
      peak_lr: where the cosine would be before the first epoch.
      total_steps: of the run.
      steps_per_epoch: of the run.
      final_factor: the last rate is this share of the peak.
    """
    _check_not_negative("epoch_cosine", final_factor=final_factor)
    epochs = total_steps / steps_per_epoch

    def rate(step: int) -> float:
        progress = (step // steps_per_epoch + 1) / epochs
        return _cosine(peak_lr, peak_lr * final_factor, progress)

    return {"learning_rate": rate}


def epoch_linear(peak_lr: float, total_steps: int, steps_per_epoch: int) -> Schedule:
    """Returns a line in steps of an epoch: the last one is as far above 0 as the first below peak.

    Source: the policy `linear`, the default of SonDaoDuy/MulCon, whose commands choose others.

    Args:
      peak_lr: where the line would be before the first epoch.
      total_steps: of the run.
      steps_per_epoch: of the run.
    """
    epochs = total_steps / steps_per_epoch
    return {
        "learning_rate": lambda step: peak_lr * (1 - (step // steps_per_epoch + 1) / (epochs + 1))
    }


def warmup_epoch_cosine(
    peak_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    epochs: float | None = None,
    warmup_epochs: int = 5,
    initial_factor: float = 0.1,
    cosine_epochs: float | None = None,
) -> Schedule:
    """Returns a line in every step, then half a cosine to 0 in steps of an epoch.

    The line goes from `initial_factor` times the peak to the value at its end of a cosine over the
    whole length, whose least value is a thousandth of the peak; the cosine goes on from the last
    rate of the line, which the first epoch after it has too.

    Source: the training scripts of SonDaoDuy/MulCon with `--warm` and the policy `cosine`, whose
    scheduler is a product over the epochs; here it is in closed form.

    Args:
      peak_lr: what the other rates are shares of; the rate stays below it.
      total_steps: of the run.
      steps_per_epoch: of the run.
      epochs: length of the whole, which may be more than are trained; None is the whole run.
      warmup_epochs: length of the line: a fifth of the 25 epochs there. 0 begins at the peak.
      initial_factor: the first rate is this share of the peak.
      cosine_epochs: length of the half cosine, after which the rate rises again; None is what the
        line leaves. Parity: it is 5 less than the whole there, whatever the warm-up.

    Raises:
      ValueError: for numbers out of their range.
    """
    owner = "warmup_epoch_cosine"
    _check_not_negative(owner, warmup_epochs=warmup_epochs, initial_factor=initial_factor)
    whole = total_steps / steps_per_epoch if epochs is None else epochs
    fall = whole - warmup_epochs if cosine_epochs is None else cosine_epochs
    _check_positive(owner, epochs=whole, cosine_epochs=fall)
    length = warmup_epochs * steps_per_epoch
    first, last = initial_factor, _cosine(1.0, 1e-3, warmup_epochs / whole)

    def share(step: int) -> float:
        return first + (last - first) * step / length if length else 1.0

    def rate(step: int) -> float:
        if step < length:
            return peak_lr * share(step)
        turn = math.pi * ((step - length) // steps_per_epoch) / fall
        return peak_lr * share(length - 1) * (1 + math.cos(turn)) / 2

    return {"learning_rate": rate}


def linear_warmup(
    peak_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    then: Part,
    epochs: float = 10.0,
    initial_rate: float = 0.01,
) -> Schedule:
    """Returns another schedule whose first epochs are a line to the rate that they end with.

    Source: `warmup_learning_rate` in HobbitLong/SupContrast `util.py`.

    Args:
      peak_lr: of the other schedule.
      total_steps: of the run.
      steps_per_epoch: of the run.
      then: the other schedule, such as `part(epoch_cosine)`.
      epochs: length of the line.
      initial_rate: of the first step; not a share of the peak.
    """
    _check_positive("linear_warmup", epochs=epochs)
    _check_not_negative("linear_warmup", initial_rate=initial_rate)
    other = resolved(then, "schedule")(peak_lr, total_steps, steps_per_epoch)
    length = max(round(epochs * steps_per_epoch), 1)
    rate = other["learning_rate"]

    def warmed(step: int) -> float:
        if step >= length:
            return rate(step)
        return initial_rate + (rate(length - 1) - initial_rate) * step / length

    return {**other, "learning_rate": warmed}


def constant(peak_lr: float, total_steps: int, steps_per_epoch: int) -> Schedule:
    """Returns the same rate for every step."""
    del total_steps, steps_per_epoch
    return {"learning_rate": lambda step: peak_lr}


def reduce_on_plateau(
    peak_lr: float,
    total_steps: int,
    steps_per_epoch: int,
    *,
    figure: str = "mAP",
    direction: Literal["max", "min"] = "max",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Schedule:
    """Returns torch's ReduceLROnPlateau, which looks at a figure of every evaluation.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`; the arguments are its own, but for
    `figure` and `direction` (its `mode`).

    Args:
      peak_lr: the first rate.
      total_steps: of the run.
      steps_per_epoch: of the run.
      figure: of the evaluators.
      direction: whether a higher or a lower figure is better.
      factor: of each reduction, below 1.
      patience: evaluations without improvement that are tolerated.
      threshold: how much better counts as an improvement.
      threshold_mode: whether `threshold` is relative to the best figure or absolute.
      cooldown: evaluations after a reduction in which none are counted.
      min_lr: the rate never goes below.
      eps: reductions by less than this are left out.

    Raises:
      ValueError: for a factor that is not between 0 and 1.
    """
    del total_steps, steps_per_epoch
    if not 0 < factor < 1:
        raise ValueError(f"reduce_on_plateau: factor must be between 0 and 1, got {factor}")
    sign = 1.0 if direction == "max" else -1.0

    def improves(value: float, best: float) -> bool:
        # Parity: the relative margin has the sign of the best figure, as in torch.
        margin = threshold * best if threshold_mode == "rel" else sign * threshold
        if threshold_mode == "rel" and direction == "min":
            margin = -margin
        return sign * value > sign * (best + margin)

    return {
        "learning_rate": Plateau(
            peak_lr,
            figure,
            improves,
            factor=factor,
            patience=patience,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
        )
    }


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{owner}: {name} must be positive and finite, got {value}")


def _check_not_negative(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{owner}: {name} must be 0 or more, and finite, got {value}")


SCHEDULES = table(
    "schedule",
    {
        "one_cycle": one_cycle,
        "warmup_cosine": warmup_cosine,
        "multi_step": multi_step,
        "epoch_cosine": epoch_cosine,
        "epoch_linear": epoch_linear,
        "warmup_epoch_cosine": warmup_epoch_cosine,
        "linear_warmup": linear_warmup,
        "constant": constant,
        "reduce_on_plateau": reduce_on_plateau,
    },
)
