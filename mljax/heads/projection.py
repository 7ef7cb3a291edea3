"""SupCon's projection of an image onto the unit sphere, for contrastive losses."""

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.dense import normalize
from mljax.layers.init import at_least_float32, torch_uniform_init


class Projection(nnx.Module):
    """Global average pooling, a layer with rectifier, a linear layer, division by the L2 norm.

    It does not classify; training goes on with another head and `model.init_from`.

    Khosla et al., "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362, section 3.1;
    `SupConResNet` in HobbitLong/SupContrast `networks/resnet_big.py`.

    Args:
      num_classes: of the data; not used.
      size: of the projection.
      hidden: whether there is the first layer, as wide as the features: the original's head `mlp`;
        without it, its head `linear`.
    """

    classifies = False

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        size: int = 128,
        hidden: bool = True,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        del num_classes
        init = torch_uniform_init(num_features)
        linear = {"kernel_init": init, "bias_init": init, "dtype": dtype, "rngs": rngs}
        self.hidden = nnx.Linear(num_features, num_features, **linear) if hidden else None
        self.output = nnx.Linear(num_features, size, **linear)

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `projections` `[b, d]` of length 1, and `pooled` `[b, c]`."""
        del rngs
        pooled = at_least_float32(features).mean((1, 2))
        x = pooled if self.hidden is None else jax.nn.relu(self.hidden(pooled))
        return {"projections": normalize(at_least_float32(self.output(x))), "pooled": pooled}
