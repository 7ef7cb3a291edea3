"""torch's attention, and the layers that stand around it in a transformer."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32, torch_uniform_init


def torch_linear(
    inputs: int, outputs: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nnx.Linear:
    """Returns a linear layer that starts as torch's does."""
    init = torch_uniform_init(inputs)
    return nnx.Linear(inputs, outputs, kernel_init=init, bias_init=init, dtype=dtype, rngs=rngs)


def layer_norm(num_features: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Returns a layer norm with torch's epsilon, whose variance is that of the centered values."""
    return nnx.LayerNorm(
        num_features, epsilon=1e-5, use_fast_variance=False, dtype=dtype, rngs=rngs
    )


class Attention(nnx.Module):
    """torch's multi-head attention of queries over a memory, with its initialization.

    Vaswani et al., "Attention Is All You Need", section 3.2, https://arxiv.org/abs/1706.03762;
    torch.nn.MultiheadAttention.

    Args:
      dropout: share of the attention weights that training drops.
      out_init: of the output's kernel; None is torch's.

    Raises:
      ValueError: for a number of features that `num_heads` does not divide.
    """

    def __init__(
        self,
        num_features: int,
        num_heads: int,
        *,
        dropout: float,
        out_init: nnx.Initializer | None = None,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        if num_features % num_heads:
            raise ValueError(
                f"embedding_size must be a multiple of num_heads, got {num_features} for "
                f"{num_heads} heads"
            )

        def linear(kernel_init: nnx.Initializer) -> nnx.Linear:
            return nnx.Linear(
                num_features, num_features, kernel_init=kernel_init, dtype=dtype, rngs=rngs
            )

        # torch draws the three as one xavier-uniform matrix [3d, d]: +-sqrt(6 / 4d).
        stacked_init = nnx.initializers.variance_scaling(0.5, "fan_in", "uniform")
        self.query = linear(stacked_init)
        self.key = linear(stacked_init)
        self.value = linear(stacked_init)
        self.out = linear(out_init or torch_uniform_init(num_features))
        self.dropout = nnx.Dropout(dropout)
        self.num_heads = num_heads

    def __call__(
        self,
        queries: Float[Array, "r g d"],
        memory: Float[Array, "b n d"],
        values: Float[Array, "b n d"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b g d"]:
        """Returns what each query reads; queries of one row (r = 1) serve every image.

        Args:
          queries: of g readers.
          memory: gives the keys, and the values unless they are given.
          values: what is read in place of the memory, as where only the keys know their places.
          rngs: of the dropout, in training.
        """
        values = memory if values is None else values
        # jax.nn.dot_product_attention has no dropout, cannot share queries between images and
        # rounds float64 to float32; these einsums are as fast.
        query, key, value = (
            x.reshape(*x.shape[:2], self.num_heads, -1)
            for x in (self.query(queries), self.key(memory), self.value(values))
        )
        query = query * query.shape[-1] ** -0.5
        scores = at_least_float32(jnp.einsum("bghd,bnhd->bhgn", query, key))
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        read = jnp.einsum("bhgn,bnhd->bghd", self.dropout(weights, rngs=rngs), value)
        return self.out(read.reshape(*read.shape[:2], -1))
