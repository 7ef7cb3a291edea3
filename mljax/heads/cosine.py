"""The classifier of metric learning: cosines of pooled features and class vectors."""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.config.part import Part, resolved
from mljax.heads.linear import AVERAGE
from mljax.layers.dense import CosineLinear, check_scale, scaled


class Cosine(nnx.Module):
    """Global pooling, then the cosine with a vector of each class; no bias.

    Prokofiev and Sovrasov 2022, section 3.1, https://arxiv.org/abs/2209.06585;
    tosfaq/deep-object-reid torchreid/models/timm_wrapper.py.

    Differs from the reference: the scale s belongs to the head, and the logits are s times the
    cosines, so that a sigmoid makes scores of them everywhere. There the logits are the cosines,
    which the engine multiplies by s before it evaluates.

    Args:
      scale: s, above 0; the paper has 17 to 25, more for more classes.
      pooling: over space: `average`, `max` or `average_plus_max`.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        scale: float = 30.0,
        pooling: Part = AVERAGE,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        del dtype  # Cosines are computed in float32 at least.
        resolved(pooling, "pooling")
        # The part itself, so that two networks of one structure are equal.
        self.pooling = pooling
        self.scale = check_scale(scale)
        self.cosine = CosineLinear(num_features, num_classes, rngs=rngs)

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `cosines` `[b, k]`, `scale`, and their product `logits`."""
        del rngs
        return scaled(self.cosine(resolved(self.pooling, "pooling")(features)), self.scale)
