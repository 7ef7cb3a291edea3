"""torch's Adam and OneCycleLR on optax, the weight-decay split, and the moving average."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array

from mljax.config.schema import OptimizerConfig, ScheduleConfig

Arrays = dict[str, Array]


def one_cycle(
    start: float, middle: float, end: float, *, total_steps: int, warmup_fraction: float
) -> Callable[[ArrayLike], Array]:
    """Returns torch's two-phase cosine OneCycleLR as a function of the step, counted from 0.

    The value goes from `start` to `middle` at step `warmup_fraction * total_steps - 1`, then to
    `end` at the last step, and stays there.

    Source: `torch.optim.lr_scheduler.OneCycleLR`; Smith and Topin, Super-Convergence,
    https://arxiv.org/abs/1708.07120.
    """
    turn = warmup_fraction * total_steps - 1
    last = total_steps - 1

    def cosine(a: float, b: float, progress: Array) -> Array:
        return b + (a - b) * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1))) / 2

    def schedule(step: ArrayLike) -> Array:
        step = jnp.asarray(step, float)
        rise = cosine(start, middle, step / turn if turn > 0 else jnp.ones_like(step))
        fall = cosine(middle, end, (step - turn) / max(last - turn, 1e-12))
        return jnp.where(step <= turn, rise, fall)

    return schedule


def decay_mask(params: Arrays, no_decay: tuple[str, ...] = ()) -> dict[str, bool]:
    """Returns which parameters are decayed: none of one axis, none named `bias`, none excluded.

    Source: `add_weight_decay` of Alibaba-MIIL/ASL `src/helper_functions/helper_functions.py`.

    Args:
      params: arrays by dotted path.
      no_decay: paths that are never decayed.
    """
    return {
        path: array.ndim != 1 and not path.endswith(".bias") and path not in no_decay
        for path, array in params.items()
    }


def learning_rate(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, total_steps: int
) -> Callable[[ArrayLike], Array]:
    """Returns the learning rate as a function of the step, counted from 0."""
    start = optimizer.peak_lr / schedule.initial_factor
    return one_cycle(
        start,
        optimizer.peak_lr,
        start / schedule.final_factor,
        total_steps=total_steps,
        warmup_fraction=schedule.warmup_fraction,
    )


def make_optimizer(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, total_steps: int
) -> optax.GradientTransformation:
    """Returns torch's Adam: decay is added to the gradient, before the moments.

    Where beta1 cycles, its bias correction at step t is `1 - beta1_t ** t` with the current beta1,
    as torch has it. The state has the `hyperparams` of the last step and, under `inner_state`, what
    a step that is left out must not change.

    Args:
      optimizer: rates and betas.
      schedule: the cycle.
      total_steps: optimizer steps of the whole cycle, which may be more than are trained.
    """

    def adam(*, learning_rate: float | Array, beta1: float | Array) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(optimizer.weight_decay, mask=decay_mask),
            optax.scale_by_adam(b1=beta1, b2=optimizer.beta2, eps=optimizer.eps),
            optax.scale_by_learning_rate(learning_rate),
        )

    beta1, static = optimizer.beta1, ["beta1"]
    if schedule.cycle_beta1:
        warmup = schedule.warmup_fraction
        beta1 = one_cycle(0.95, 0.85, 0.95, total_steps=total_steps, warmup_fraction=warmup)
        static = []
    # A constant in the state would come back with a checkpoint, whatever the recipe says by then.
    return optax.inject_hyperparams(adam, static_args=static)(
        learning_rate=learning_rate(optimizer, schedule, total_steps), beta1=beta1
    )


def moving_average(average: Arrays, new: Arrays, decay: float) -> Arrays:
    """Returns `decay * average + (1 - decay) * new` for every array.

    Source: `ModelEma` of Alibaba-MIIL/ASL; no warm-up and no bias correction.
    """
    return jax.tree.map(lambda a, n: decay * a + (1 - decay) * n, average, new)
