"""Features on their way to other networks: the mean over space, and no classifier."""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32


class Pooled(nnx.Module):
    """Global average pooling alone: the head of a backbone that was saved without its classifier.

    A checkpoint with it starts other trainings (`model.init_from`) and gives features, but no
    logits, so that there are no classes: `num_classes` is 0.
    """

    classifies = False

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        del num_features, dtype, rngs
        if num_classes:
            raise ValueError(
                f"the head pooled has no classifier, so no classes: got num_classes {num_classes}; "
                "choose another head, such as linear"
            )

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `pooled` `[b, c]`."""
        del rngs
        return {"pooled": at_least_float32(features).mean((1, 2))}
