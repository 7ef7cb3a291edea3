"""Classifiers on the pooled map: one linear layer, or two without activation between."""

import functools

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.config.part import Part, part, resolved
from mljax.layers import POOLINGS
from mljax.layers.init import at_least_float32, normal_init, torch_uniform_init

AVERAGE = part(POOLINGS["average"])


def _linear(inputs: int, outputs: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(
        inputs,
        outputs,
        kernel_init=normal_init(0.01),
        bias_init=torch_uniform_init(inputs),
        dtype=dtype,
        rngs=rngs,
    )


class Linear(nnx.Module):
    """Global pooling, then a linear layer (the `head` of Alibaba-MIIL/ASL's TResNet).

    Args:
      pooling: over space: `average`, as TResNet and ResNet have it, `max` or `average_plus_max`.
      embedding_size: width of a linear layer before the classifier, as the OpenImages networks
        have it (`bottleneck_head`); None for none.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        pooling: Part = AVERAGE,
        embedding_size: int | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        resolved(pooling, "pooling")
        # The part itself, so that two networks of one structure are equal.
        self.pooling = pooling
        self.embedding = (
            None if embedding_size is None else _linear(num_features, embedding_size, dtype, rngs)
        )
        self.linear = _linear(embedding_size or num_features, num_classes, dtype, rngs)

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `logits` `[b, k]`."""
        del rngs
        pooled = resolved(self.pooling, "pooling")(features)
        if self.embedding is not None:
            pooled = self.embedding(pooled)
        return {"logits": at_least_float32(self.linear(pooled))}


Bottleneck = functools.partial(Linear, embedding_size=512)
