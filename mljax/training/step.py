"""What happens to the state in one step of training and one batch of evaluation."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mljax.config.binding import bind, lookup
from mljax.config.schema import Config, LossConfig
from mljax.devices.mesh import batch_sharding, local_rows
from mljax.losses import LOSSES
from mljax.losses.prior import update_prior
from mljax.models.classifier import Arrays, Classifier, merge_model, split_model
from mljax.training.optimizer import moving_average

Batch = dict[str, Any]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "step",
        "params",
        "stats",
        "ema_params",
        "ema_stats",
        "opt_state",
        "skipped",
        "prior",
    ],
    meta_fields=[],
)
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a run changes.

    As a tree it also holds shardings or shapes in place of the arrays, hence the loose types.

    Attributes:
      step: int32 scalar, optimizer steps taken, skipped ones included.
      params: parameters by dotted path.
      stats: other arrays by dotted path: running statistics.
      ema_params: moving average of `params`; empty without one.
      ema_stats: moving average of `stats`.
      opt_state: optax's.
      skipped: int32 scalar, steps whose update was left out because something in it was not finite.
      prior: `mean` `[k]`, the mean prediction over all images so far, and `count`, their number;
        empty unless `train.estimate_prior`.
    """

    step: Any
    params: Arrays
    stats: Arrays
    ema_params: Arrays
    ema_stats: Arrays
    opt_state: Any
    skipped: Any
    prior: Arrays = field(default_factory=dict)


def make_state(
    model: Classifier,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    estimate_prior: bool = False,
) -> TrainState:
    """Returns the state before the first step; the average starts as a copy of the network."""
    _, params, stats = split_model(model)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        ema_params=jax.tree.map(jnp.copy, params) if ema_decay else {},
        ema_stats=jax.tree.map(jnp.copy, stats) if ema_decay else {},
        opt_state=optimizer.init(params),
        skipped=jnp.zeros((), jnp.int32),
        prior={"mean": jnp.zeros(model.spec.num_classes), "count": jnp.zeros(())}
        if estimate_prior
        else {},
    )


def total_loss(
    losses: tuple[LossConfig, ...], outputs: dict[str, Array], batch: Batch, *, parts: int = 1
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns the weighted sum of all losses, and each of them.

    A loss's arguments come by name from the head's outputs and from the batch. Entries of examples
    that are not valid count as zero.

    Args:
      losses: the recipe's.
      outputs: of the head.
      batch: `labels`, `valid`, ...
      parts: micro-batches whose losses will be added up, so that a mean is one over all of them.

    Raises:
      ValueError: for a loss that reads what neither the head nor the batch has.
    """
    available = {**batch, **outputs}
    terms = {}
    for loss in losses:
        function = lookup(LOSSES, loss.name, "loss")
        values = function(**_arguments(loss, function, available), **loss.kwargs)
        valid = batch["valid"]
        if values.shape[0] == valid.shape[0]:
            mask = valid.reshape(-1, *[1] * (values.ndim - 1))
            values = jnp.where(mask, values, 0)
        total = values.sum()
        terms[loss.name] = total / (values.shape[0] * parts) if loss.reduction == "mean" else total
    weighted = [loss.weight * terms[loss.name] for loss in losses]
    return functools.reduce(jnp.add, weighted), terms


def _arguments(
    loss: LossConfig, function: Callable[..., Array], available: dict[str, Array]
) -> dict[str, Array]:
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.name in available and p.name not in loss.kwargs]
    missing = [
        p.name
        for p in parameters
        if p.default is p.empty and p.name not in names and p.name not in loss.kwargs
    ]
    if missing:
        raise ValueError(
            f"loss {loss.name} reads {', '.join(missing)}, but the head and the batch give only "
            f"{', '.join(sorted(available))}: choose another head or loss"
        )
    return {name: available[name] for name in names}


def check_losses(losses: tuple[LossConfig, ...]) -> None:
    """Checks names and arguments of a recipe's losses.

    Raises:
      ValueError: for no loss, the same twice, or an unknown name or argument.
    """
    names = [loss.name for loss in losses]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"losses: expected at least one, each once, got {names}")
    for loss in losses:
        bind(lookup(LOSSES, loss.name, "loss"), loss.kwargs, f"loss {loss.name}")


def make_train_step(
    model: Classifier, optimizer: optax.GradientTransformation, config: Config
) -> Callable[[TrainState, Batch, Array], tuple[TrainState, dict[str, Array]]]:
    """Returns `step(state, batch, key) -> (state, metrics)`, a pure function still to be jitted.

    The metrics are `loss`, each term as `loss/<name>`, `gradient_norm`, `learning_rate` and
    `finite`. A step in which the loss, a gradient or an update is not finite leaves everything as
    it was, but for the counters and schedules.

    Args:
      model: gives the structure only.
      optimizer: of `mljax.training.optimizer.make_optimizer`; its state is in the `TrainState`.
      config: its `losses` and `train` are read.
    """
    training = nnx.view(
        model,
        deterministic=False,
        use_running_average=False,
        batch_norm_groups=config.train.batch_norm_groups,
        raise_if_not_found=False,
    )
    graph = nnx.graphdef(training)
    parts = config.train.accumulation

    def loss_and_statistics(
        params: Arrays, stats: Arrays, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Arrays, dict[str, Array], Array | None]]:
        network = merge_model(graph, params, stats)
        outputs = network(batch["images"], rngs=nnx.Rngs(dropout=key))
        loss, terms = total_loss(config.losses, outputs, batch, parts=parts)
        logits = outputs.get("logits") if config.train.estimate_prior else None
        if logits is None and config.train.estimate_prior:
            raise ValueError("train.estimate_prior needs a head that gives logits")
        return loss, (split_model(network)[2], terms, logits)

    gradients = jax.value_and_grad(loss_and_statistics, has_aux=True)
    if parts > 1:
        gradients = _over_micro_batches(gradients, parts, [loss.name for loss in config.losses])

    def step(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(key, state.step)
        found = gradients(state.params, state.stats, batch, key)
        (loss, (stats, terms, logits)), grads = found
        norm = optax.tree.norm(grads)
        opt_state: Any
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        decay = config.train.ema_decay
        new = replace(
            state,
            params=params,
            stats=stats,
            ema_params=moving_average(state.ema_params, params, decay) if decay else {},
            ema_stats=moving_average(state.ema_stats, stats, decay) if decay else {},
            opt_state=opt_state,
            prior=_moved_prior(state.prior, logits, batch["valid"]),
        )
        finite = jnp.isfinite(jnp.stack([loss, norm, optax.tree.norm(updates)])).all()
        # Parity: the schedules go on where a step is left out, as under torch's GradScaler.
        left_out = opt_state._replace(inner_state=state.opt_state.inner_state)
        old = replace(state, opt_state=left_out)
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, old)
        new = replace(new, step=state.step + 1, skipped=state.skipped + jnp.where(finite, 0, 1))
        metrics = {
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": opt_state.hyperparams["learning_rate"],
            "finite": finite,
        }
        return new, metrics | {f"loss/{name}": value for name, value in terms.items()}

    return step


def _over_micro_batches(
    gradients: Callable[..., Any], parts: int, losses: list[str]
) -> Callable[..., Any]:
    """Returns `gradients` of the sum over as many micro-batches, one after the other."""

    def summed(params: Arrays, stats: Arrays, batch: Batch, key: Array) -> Any:  # noqa: ANN401
        # Every `parts`-th row: a micro-batch then lies on all devices, as the whole batch does.
        slices = {
            k: jnp.moveaxis(v.reshape(-1, parts, *v.shape[1:]), 1, 0) for k, v in batch.items()
        }

        def add(carry: Any, inputs: Any) -> tuple[Any, Array | None]:  # noqa: ANN401
            sums, stats = carry
            index, micro = inputs
            found = gradients(params, stats, micro, jax.random.fold_in(key, index))
            (loss, (stats, terms, logits)), grads = found
            return (jax.tree.map(jnp.add, sums, (loss, terms, grads)), stats), logits

        terms = dict.fromkeys(losses, jnp.zeros(()))
        zeros = (jnp.zeros(()), terms, jax.tree.map(jnp.zeros_like, params))
        found = jax.lax.scan(add, (zeros, stats), (jnp.arange(parts), slices))
        ((loss, terms, grads), stats), logits = found
        if logits is not None:
            logits = jnp.moveaxis(logits, 0, 1).reshape(-1, logits.shape[-1])
        return (loss, (stats, terms, logits)), grads

    return summed


def _moved_prior(prior: Arrays, logits: Array | None, valid: Array) -> Arrays:
    if logits is None:
        return prior
    mean, count = update_prior(prior["mean"], prior["count"], logits, valid)
    return {"mean": mean, "count": count}


def make_forward(
    model: Classifier, mesh: Mesh
) -> Callable[[Arrays, Arrays, Float[np.ndarray, "b h w 3"]], Float[np.ndarray, "b k"]]:
    """Returns `forward(params, stats, images)`: this process's images to their logits."""
    graph = nnx.graphdef(model)
    sharding = batch_sharding(mesh)

    @functools.partial(jax.jit, out_shardings=sharding)
    def logits(params: Arrays, stats: Arrays, images: Float[Array, "b h w 3"]) -> Array:
        return merge_model(graph, params, stats)(images)["logits"]

    def forward(params: Arrays, stats: Arrays, images: np.ndarray) -> np.ndarray:
        rows = jax.make_array_from_process_local_data(sharding, images)
        return local_rows(logits(params, stats, rows))

    return forward
