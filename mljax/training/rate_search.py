"""Searches for the learning rate: a range test within an epoch, or many short trials.

Prokofiev and Sovrasov, "Towards Efficient and Data Agnostic Image Classification Training
Pipeline", https://arxiv.org/abs/2108.07049; tosfaq/deep-object-reid (branch multilabel-paper)
torchreid/optim/lr_finder.py.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Points of a curve without which it has no slope.
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """What a search found.

    Attributes:
      rates: that were tried.
      values: of each: the smoothed loss, or the score of a trial.
      suggestion: the rate to take.
    """

    rates: tuple[float, ...]
    values: tuple[float, ...]
    suggestion: float


def range_test(
    loss_at: Callable[[float], float],
    *,
    low: float,
    high: float,
    steps: int,
    smoothing: float = 0.01,
    divergence: float = 5.0,
    skip_start: int = 10,
    skip_end: int = 5,
) -> RateCurve:
    """Returns the losses of steps whose rate grows, and the rate where they fall most steeply.

    Step i of n has the rate low (high / low)^(i / (n - 1)). The loss is smoothed over the steps:
    `smoothing` of the new one, the rest of the one before. The test ends early where it is not
    finite, or above `divergence` times the least so far.

    Smith, "Cyclical Learning Rates for Training Neural Networks", section 3.3,
    https://arxiv.org/abs/1506.01186, in the form of PyPI's torch-lr-finder.

    Differs from the reference: a fall that is steepest at the first point counts, where the
    original gives no rate; a loss that is not finite ends the test.

    Args:
      loss_at: takes one step with a rate; returns the loss before it.
      low: the first rate, above 0.
      high: the last one, above `low`.
      steps: how many.
      smoothing: in (0, 1]; 1 smooths nothing.
      divergence: see above.
      skip_start: losses at the start that suggest nothing.
      skip_end: losses at the end that suggest nothing.

    Raises:
      ValueError: for numbers out of their range, or losses too few to suggest anything.
    """
    if not 0 < low < high < math.inf or not 0 < smoothing <= 1:
        raise ValueError(
            f"range test: rates must be positive and rise, got {low} to {high}, and smoothing be "
            f"above 0 and at most 1, got {smoothing}"
        )
    rates, losses = [], []
    for step in range(steps):
        rate = low * (high / low) ** (step / max(steps - 1, 1))
        loss = loss_at(rate)
        if not math.isfinite(loss):
            break
        if losses:
            loss = smoothing * loss + (1 - smoothing) * losses[-1]
        rates.append(rate)
        losses.append(loss)
        if loss > divergence * min(losses):
            break
    kept = losses[skip_start : len(losses) - skip_end]
    if len(kept) < _FEWEST:
        raise ValueError(
            f"range test: {len(losses)} of {steps} steps have losses to compare, and the first "
            f"{skip_start} and last {skip_end} are left out: take more steps, or a lower rate than "
            f"{low:g} to begin with"
        )
    steepest = skip_start + int(np.gradient(kept).argmin())
    return RateCurve(rates=tuple(rates), values=tuple(losses), suggestion=rates[steepest])


def search_by_trials(
    scores_of: Callable[[float], Iterable[float]],
    *,
    low: float = 1e-5,
    high: float = 1e-3,
    step: float = 1e-5,
    trials: int = 15,
    seed: int = 1,
    whole_grid: bool = False,
) -> RateCurve:
    """Returns the last scores of short trainings, and the rate of the highest.

    The tree-structured Parzen estimator chooses the rates, after five at random. A trial whose
    score is below the median of those before it, at the same epoch, is given up; so is a rate that
    was tried already. Both use up a trial, so that fewer than `trials` are completed.

    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011; optuna's `TPESampler`,
    `GridSampler` and `MedianPruner`. Parity: the rate of a trial has six decimals, the suggestion
    those of optuna.

    Args:
      scores_of: a rate to the scores after each epoch of a training with it; higher is better.
      low: the lowest rate.
      high: the highest rate; with `whole_grid` it is left out.
      step: distance of two rates.
      trials: how many, with those that are given up.
      seed: of the choice.
      whole_grid: try the rates of the grid at random, each once at most.

    Raises:
      ImportError: without optuna.
      ValueError: for numbers out of their range, or if no trial was completed.
    """
    if not 0 < step <= high - low or not 0 < low or trials < 1:
        raise ValueError(
            "search by trials: rates must be positive and a step apart, and trials 1 or more, got "
            f"{low} to {high} by {step} and {trials} trials"
        )
    optuna = _import_optuna()
    sampler = optuna.samplers.TPESampler(n_startup_trials=5, seed=seed)
    if whole_grid:
        grid = {"rate": np.arange(low, high, step).tolist()}
        sampler = optuna.samplers.GridSampler(grid, seed=seed)
    tried: set[float] = set()

    def last_score(trial: Any) -> float:  # noqa: ANN401
        rate = trial.suggest_float("rate", low, high, step=step)
        if rate in tried:
            raise optuna.TrialPruned
        tried.add(rate)
        score = -math.inf
        for epoch, score in enumerate(scores_of(round(rate, 6))):
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(last_score, n_trials=trials)
    return _completed(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))


def _import_optuna() -> Any:  # noqa: ANN401
    try:
        import optuna
    except ImportError as error:
        raise ImportError("trials need optuna: pip install 'mljax[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _completed(trials: Sequence[Any]) -> RateCurve:
    if not trials:
        raise ValueError("search by trials: no trial was completed; take more trials")
    rates, values = zip(*((t.params["rate"], t.value) for t in trials), strict=True)
    return RateCurve(rates=rates, values=values, suggestion=rates[int(np.argmax(values))])
