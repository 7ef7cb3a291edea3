"""Gradients of the training loss, and what can be wrapped around them.

`gradients(params, variables, batch, key)` returns `((loss, (variables, terms)), grads)`. The
variables are what a forward pass in training mode changes beside the parameters: `statistics` of
the network and the arrays of the `trackers`. A wrapper takes such a function and returns another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from mljax.config.part import table
from mljax.config.schema import Preprocessing
from mljax.models.arrays import Arrays, crop_channels, merge_model, pad_channels, split_model
from mljax.models.classifier import Classifier
from mljax.models.pixels import normalize_pixels
from mljax.training.objective import Batch, Term, total_loss

Variables = dict[str, Any]
Found = tuple[tuple[Array, tuple[Variables, dict[str, Array]]], Arrays]
Gradients = Callable[[Arrays, Variables, Batch, Array], Found]


def make_gradients(
    model: Classifier,
    terms: Sequence[Term],
    *,
    trackers: Mapping[str, Any] | None = None,
    batch_norm_groups: int = 1,
    frozen: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    channel_multiple: int = 1,
) -> Gradients:
    """Returns the gradients of the sum of the terms.

    Where a batch has several views of each image, `[b, v, h, w, 3]`, all that reads it has a row
    for each view, `b * v` in all, those of an image together, and `views` says how many they are.

    Args:
      model: gives the structure only.
      terms: of `make_terms`.
      trackers: name to tracker; each sees the head's dict and the batch.
      batch_norm_groups: see `TrainConfig`.
      frozen: paths in the network that stay in eval mode, and whose gradients are 0.
      preprocessing: normalizes images of uint8; images of floats are read as they are.
      channel_multiple: see `TrainConfig`.
    """

    def is_frozen(path: str) -> bool:
        return any(f"{path}.".startswith(f"{start}.") for start in frozen)

    training = nnx.view(
        model,
        only=lambda path, _: not is_frozen(".".join(map(str, path))),
        deterministic=False,
        use_running_average=False,
        batch_norm_groups=batch_norm_groups,
        recompute=True,
        raise_if_not_found=False,
    )
    graph = nnx.graphdef(training)

    def loss_and_variables(
        params: Arrays, variables: Variables, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], tuple[Variables, dict[str, Array]]]:
        params = {p: jax.lax.stop_gradient(a) if is_frozen(p) else a for p, a in params.items()}
        batch = _one_row_a_view(batch)
        # Batch norm sees the rows that are not valid, too.
        images = normalize_pixels(batch["images"], preprocessing, batch["valid"])
        batch = {**batch, "images": images}
        # The gradient of zeros that are added is left out again.
        network = merge_model(
            graph,
            pad_channels(params, channel_multiple),
            pad_channels(variables["statistics"], channel_multiple),
        )
        outputs = network(images, rngs=nnx.Rngs(dropout=key))
        loss, values = total_loss(terms, outputs, batch)
        tracked = {
            name: tracker.update(variables["trackers"][name], outputs, batch)
            for name, tracker in (trackers or {}).items()
        }
        statistics = crop_channels(split_model(network)[2], variables["statistics"])
        return loss, ({"statistics": statistics, "trackers": tracked}, values)

    return jax.value_and_grad(loss_and_variables, has_aux=True)


def _one_row_a_view(batch: Batch) -> Batch:
    images = batch["images"]
    if images.ndim == 4:
        return batch
    views = images.shape[1]
    rows = {k: jnp.repeat(v, views, axis=0) if jnp.ndim(v) else v for k, v in batch.items()}
    # Image by image: a batch that is split over devices stays where it is.
    return {**rows, "images": images.reshape(-1, *images.shape[2:]), "views": views}


def micro_batches(gradients: Gradients, *, count: int) -> Gradients:
    """Returns the gradients of the sum over micro-batches, one after the other, to save memory.

    Batch norm and the losses that compare images see one micro-batch. The statistics and trackers
    go from one to the next.

    Args:
      gradients: of a batch.
      count: micro-batches that each batch is split into.

    Raises:
      ValueError: for a count below 1; when called, for a batch that it does not divide.
    """
    if count < 1:
        raise ValueError(f"micro_batches: count must be at least 1, got {count}")

    def summed(params: Arrays, variables: Variables, batch: Batch, key: Array) -> Found:
        rows = len(batch["images"])
        if rows % count:
            raise ValueError(
                f"data.batch_size must be a multiple of the {count} micro_batches, got {rows}"
            )
        # Every `count`-th row: a micro-batch then lies on all devices, as the whole batch does.
        slices = {
            k: jnp.moveaxis(v.reshape(-1, count, *v.shape[1:]), 1, 0) for k, v in batch.items()
        }

        def found(variables: Variables, index: Array, micro: Batch) -> Found:
            micro = {**micro, "share": 1 / count}
            return gradients(params, variables, micro, jax.random.fold_in(key, index))

        def add(carry: Any, inputs: Any) -> tuple[Any, None]:  # noqa: ANN401
            sums, variables = carry
            (loss, (variables, terms)), grads = found(variables, *inputs)
            return (jax.tree.map(jnp.add, sums, (loss, terms, grads)), variables), None

        first = jax.tree.map(lambda x: x[0], slices)
        (loss, (_, terms)), grads = jax.eval_shape(found, variables, jnp.int32(0), first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, terms, grads))
        inputs = (jnp.arange(count), slices)
        ((loss, terms, grads), variables), _ = jax.lax.scan(add, (zeros, variables), inputs)
        return (loss, (variables, terms)), grads

    return summed


def sharpness_aware(
    gradients: Gradients, *, rho: float = 0.05, adaptive: bool = False
) -> Gradients:
    """Returns the gradients at the end of a short climb, so that flat minima are sought (SAM).

    With g the gradients at w they are those at w + rho g / |g|, where |g| is the norm over all
    parameters; with `adaptive`, those at w + rho w^2 g / |w g|. Both passes see the same batch,
    with dropout drawn anew. Loss, terms and gradients are those of the second pass.

    Foret et al. 2021, equations 2 and 3, https://arxiv.org/abs/2010.01412; adaptive: Kwon et al.,
    ASAM, https://arxiv.org/abs/2102.11600; tosfaq/deep-object-reid (branch multilabel-paper)
    torchreid/optim/sam.py. Decay of weights is the optimizer's, at w: it is no part of the climb.

    Parity: batch norm moves its running statistics in both passes, the second time by what it sees
    at the changed weights. If all gradients are 0 there is no climb: 1e-12 is added to the norm.

    Differs from the reference:
      - If the norm of the first gradients is not finite, or anything of the second pass, the step
        leaves everything as it was, and `train.non_finite` says what follows. The original looks at
        the sum of each gradient instead, and after a second pass that fails its weights stay where
        the climb ended.
      - Trackers see a batch once, in the first pass.
      - `optimizer.clip_norm` clips the second gradients; the original clips the first.
      - Parameters of a frozen group climb too; the original leaves out what it does not train.

    Args:
      gradients: of a batch; as the innermost one, `micro_batches` saves memory in both passes.
      rho: length of the climb, at least 0.
      adaptive: climb by a share of each weight.

    Raises:
      ValueError: for a negative rho.
    """
    if not rho >= 0:
        raise ValueError(f"sharpness_aware: rho must be at least 0, got {rho}")

    def climbed(params: Arrays, variables: Variables, batch: Batch, key: Array) -> Found:
        first_key, second_key = jax.random.split(key)
        (_, (variables, _)), climb = gradients(params, variables, batch, first_key)
        weighted = jax.tree.map(jnp.multiply, params, climb) if adaptive else climb
        norm = optax.tree.norm(weighted)
        if adaptive:
            climb = jax.tree.map(jnp.multiply, params, weighted)
        peak = jax.tree.map(lambda w, g: w + rho / (norm + 1e-12) * g, params, climb)
        # Without a barrier the climb is fused into the second pass: ten times the time on CPUs.
        peak = jax.lax.optimization_barrier(peak)
        (loss, (after, terms)), grads = gradients(peak, variables, batch, second_key)
        # A norm that overflows would make a climb of length 0.
        loss = jnp.where(jnp.isfinite(norm), loss, jnp.nan)
        return (loss, ({**after, "trackers": variables["trackers"]}, terms)), grads

    return climbed


WRAPPERS = table(
    "gradient wrapper", {"micro_batches": micro_batches, "sharpness_aware": sharpness_aware}
)
