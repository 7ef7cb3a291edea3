"""All that a run changes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from mljax.models.arrays import Arrays, split_model
from mljax.models.classifier import Classifier
from mljax.training.optimizer import Hyperparameters, Optimizer


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "step",
        "params",
        "statistics",
        "ema_params",
        "ema_statistics",
        "opt_state",
        "skipped",
        "trackers",
    ],
    meta_fields=[],
)
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """The arrays of a run.

    As a tree it also holds shardings or shapes in place of the arrays, hence the loose types.

    Attributes:
      step: int32 scalar, optimizer steps taken, skipped ones included.
      params: parameters by dotted path.
      statistics: other arrays by dotted path, such as running means.
      ema_params: moving average of `params`; empty without one.
      ema_statistics: moving average of `statistics`.
      opt_state: optax's.
      skipped: int32 scalar, steps whose update was left out because something in it was not finite.
      trackers: arrays of each tracker, by its name.
    """

    step: Any
    params: Arrays
    statistics: Arrays
    ema_params: Arrays
    ema_statistics: Arrays
    opt_state: Any
    skipped: Any
    trackers: dict[str, Arrays] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, tuple[Arrays, Arrays]]:
        """Parameters and statistics: the plain ones and, if there are any, the averaged ones."""
        weights = {"plain": (self.params, self.statistics)}
        if self.ema_params:
            weights["ema"] = (self.ema_params, self.ema_statistics)
        return weights


def make_state(
    model: Classifier,
    optimizer: Optimizer,
    hyperparameters: Hyperparameters,
    *,
    ema_decay: float = 0.0,
    trackers: Mapping[str, Any] | None = None,
) -> TrainState:
    """Returns the state before the first step; the average starts as a copy of the network.

    Args:
      model: freshly initialized.
      optimizer: of `make_optimizer`.
      hyperparameters: of the first step.
      ema_decay: 0 keeps no average.
      trackers: name to tracker.
    """
    _, params, statistics = split_model(model)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        statistics=statistics,
        ema_params=_copy(params) if ema_decay else {},
        ema_statistics=_copy(statistics) if ema_decay else {},
        opt_state=optimizer(hyperparameters).init(params),
        skipped=jnp.zeros((), jnp.int32),
        trackers={name: tracker.init(model) for name, tracker in (trackers or {}).items()},
    )


def _copy(arrays: Arrays) -> Arrays:
    # `jnp.copy` is a program to compile for each shape.
    return jax.device_put(arrays, may_alias=False)
