"""Memory of the backward pass: what is cheap to compute again is not kept for it."""

from collections.abc import Callable

from flax import nnx
from jax import lax
from jaxtyping import Array, Float

_KEPT = (lax.conv_general_dilated_p, lax.dot_general_p, lax.reduce_sum_p)


def recomputing(
    block: Callable[[Array], Array], x: Float[Array, "b h w c"]
) -> Float[Array, "b i j d"]:
    """Returns `block(x)`, keeping less for the backward pass.

    It keeps the map and what convolutions, matrix products and sums make of it. Normalized and
    activated maps, blurs and products are computed again from these, as in-place activated batch
    norm does. On CPUs this saves memory under `mljax.devices.compiler.compiler_options` alone.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost,
    https://arxiv.org/abs/1604.06174, section 4.

    Args:
      block: an `nnx.Module`, whose statistics may change.
      x: maps.
    """
    return _recomputing(block, x)


def _call(block: Callable[[Array], Array], x: Array) -> Array:
    return block(x)


def _is_kept(primitive: object, *_: object, **__: object) -> bool:
    return primitive in _KEPT


_recomputing = nnx.remat(_call, policy=_is_kept)
