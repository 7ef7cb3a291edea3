"""One step of training: gradients, update, averages, and what is logged of it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from mljax.config.schema import MatmulPrecision
from mljax.devices.compiler import at_precision, compiler_options
from mljax.devices.mesh import batch_sharding, replicated
from mljax.training.gradients import Gradients
from mljax.training.objective import Batch
from mljax.training.optimizer import Hyperparameters, Optimizer, moving_average
from mljax.training.state import TrainState

Step = Callable[[TrainState, Batch, Array, Hyperparameters], tuple[TrainState, dict[str, Array]]]


class NonFiniteError(ValueError):
    """A loss, gradient or other array that is not finite, under the policy `stop`."""


def make_train_step(gradients: Gradients, optimizer: Optimizer, *, ema_decay: float = 0.0) -> Step:
    """Returns `step(state, batch, key, hyperparameters)`, a pure function still to be jitted.

    It returns the new state and the metrics `loss`, each term as `loss/<name>`, `gradient_norm`
    (before clipping) and `finite`. A step in which the loss, a gradient, an update or any array of
    the new state is not finite leaves everything as it was, but for the counters.

    Args:
      gradients: of `make_gradients`, perhaps wrapped; trackers keep shapes and dtypes.
      optimizer: of `make_optimizer`, whose state keeps shapes and dtypes.
      ema_decay: see `TrainConfig`.
    """

    def step(
        state: TrainState, batch: Batch, key: Array, hyperparameters: Hyperparameters
    ) -> tuple[TrainState, dict[str, Array]]:
        # A step draws the same numbers whether the run was resumed before it or not.
        key = jax.random.fold_in(key, state.step)
        variables = {"statistics": state.statistics, "trackers": state.trackers}
        (loss, (variables, terms)), grads = gradients(state.params, variables, batch, key)
        norm = optax.tree.norm(grads)
        transform = optimizer(hyperparameters)
        statistics, trackers = variables["statistics"], variables["trackers"]

        def update(state: TrainState) -> TrainState:
            updates: Any
            updates, opt_state = transform.update(grads, state.opt_state, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            average = {}
            if ema_decay:
                average = {
                    "ema_params": moving_average(state.ema_params, params, ema_decay),
                    "ema_statistics": moving_average(state.ema_statistics, statistics, ema_decay),
                }
            return replace(
                state,
                params=params,
                statistics=statistics,
                opt_state=opt_state,
                trackers=trackers,
                **average,
            )

        # An update that is not finite makes a parameter that is not.
        finite = jnp.isfinite(loss) & jnp.isfinite(norm) & _stays_finite(update(state), state)
        new = _update_if(finite, update, state)
        # Parity: the schedules follow this count, so they go on where a step is left out, as under
        # torch's GradScaler.
        new = replace(new, step=state.step + 1, skipped=state.skipped + jnp.where(finite, 0, 1))
        metrics = {"loss": loss, "gradient_norm": norm, "finite": finite}
        return new, metrics | {f"loss/{name}": value for name, value in terms.items()}

    return step


def _stays_finite(new: TrainState, old: TrainState) -> Array:
    """Returns whether no value has become infinite or nan; an optimizer may begin with such."""
    kept: dict[tuple[int, ...], Array] = {}
    for after, before in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        if jnp.issubdtype(after.dtype, jnp.inexact):
            # Arrays of one shape are looked at together: one pass over all of them.
            stays = jnp.isfinite(after) | ~jnp.isfinite(before)
            kept[after.shape] = kept.get(after.shape, True) & stays
    return jnp.stack([stays.all() for stays in kept.values()]).all()


def _update_if(
    wanted: Array, update: Callable[[TrainState], TrainState], state: TrainState
) -> TrainState:
    """Returns `update(state)` or the state as it is."""

    def select(state: TrainState) -> TrainState:
        return jax.tree.map(functools.partial(jnp.where, wanted), update(state), state)

    # A CPU changes the arrays in place, with less than half of the passes over them. A GPU would
    # have to wait for its host to choose the branch.
    return jax.lax.platform_dependent(
        state,
        cpu=lambda state: jax.lax.cond(wanted, update, lambda state: state, state),
        default=select,
    )


def jit_step(
    step: Step,
    mesh: Mesh,
    shardings: TrainState | NamedSharding,
    *,
    matmul_precision: MatmulPrecision = "default",
    deterministic: bool = False,
) -> Any:  # noqa: ANN401
    """Returns the step compiled for a mesh; it donates the state.

    Args:
      step: of `make_train_step`.
      mesh: batches are split over its devices.
      shardings: of the state, or one for all its arrays.
      matmul_precision: see `TrainConfig`.
      deterministic: see `TrainConfig`.
    """
    whole = replicated(mesh)
    return jax.jit(
        at_precision(matmul_precision, step),
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh), whole, whole),
        out_shardings=(shardings, whole),
        compiler_options=compiler_options(mesh, deterministic=deterministic),
    )


def check_finite(
    metrics: Mapping[str, Array], step: int, policy: Literal["stop", "skip"] = "stop"
) -> None:
    """Checks the metrics of a step, if there are any; waits for the step to be done.

    Raises:
      NonFiniteError: under the policy `stop`, naming what is not finite.
    """
    if not metrics or policy == "skip" or bool(metrics["finite"]):
        return
    terms = {k.removeprefix("loss/"): float(v) for k, v in metrics.items() if k.startswith("loss/")}
    guilty = [f"{name} is {value}" for name, value in terms.items() if not np.isfinite(value)]
    if not guilty:
        guilty = [
            "all losses are finite, but a gradient or an update is not, or another array of the "
            "state, such as a running variance"
        ]
    raise NonFiniteError(
        f"step {step}: {'; '.join(guilty)}. The parameters were left as they were before this "
        "step. Lower optimizer.peak_lr, look at the images of this step, or pass --set "
        "train.non_finite=skip to leave such steps out"
    )
