"""Memory of the backward pass: what is cheap to compute again is not kept for it."""

from collections.abc import Callable

import jax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

# Of `checkpoint_name`: the output of a convolution that is written in other operations.
CONVOLVED = "convolved"

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


class Blocks(nnx.List):
    """Blocks of a network, one after the other.

    `nnx.view(network, recompute=True)` gives one whose backward pass computes cheap maps again.
    """

    recompute = False

    def set_view(self, recompute: bool | None = None) -> None:
        """Sets what `nnx.view` asks for."""
        if recompute is not None:
            self.recompute = recompute

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map that the last block makes."""
        for block in self:
            x = recomputing(block, x) if self.recompute else block(x)
        return x


def _call(block: Callable[[Array], Array], x: Array) -> Array:
    return block(x)


def _is_kept(primitive: object, *_: object, **__: object) -> bool:
    return primitive in _KEPT


_recomputing = nnx.remat(
    _call,
    policy=jax.checkpoint_policies.save_from_both_policies(
        _is_kept, jax.checkpoint_policies.save_only_these_names(CONVOLVED)
    ),
)
