"""CSRA: class-specific residual attention, a mean of class scores over space plus a weighted one.

Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition",
https://arxiv.org/abs/2108.02456; Kevinz-code/CSRA pipeline/resnet_csra.py and csra.py.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32, torch_uniform_init

TEMPERATURES: dict[int, tuple[float | None, ...]] = {
    1: (1,),
    2: (1, None),
    4: (1, 2, 4, None),
    6: (1, 2, 3, 4, 5, None),
    8: (1, 2, 3, 4, 5, 6, 7, None),
}
"""Of the published heads, by their number."""


class CSRA(nnx.Module):
    """Class scores at every place, whose mean over space and attended mean make the logits.

    A logit is the mean plus `weight` times the mean that a softmax over space weights. The score is
    the product of the feature and the class's vector, which is divided by its length. With several
    heads, each of its own vectors and temperature, the logits are summed.

    Zhu and Wu 2021, equations 4 to 7, https://arxiv.org/abs/2108.02456; Kevinz-code/CSRA
    pipeline/csra.py, `CSRA` and `MHA`. The published networks have one head with a weight of 0.1
    (VOC) and four or six with 0.5 (COCO), and read images in [0, 1] that are not normalized.

    Parity: the length has no epsilon, so a class vector of zeros gives nan there; here it gives
    logits of 0.

    Args:
      temperatures: of each head; the weights of the places are the softmax of temperature * score,
        and None takes the highest score alone (the original's 99). `TEMPERATURES` has those
        of the published heads.
      weight: of the attended score, the paper's lambda.

    Raises:
      ValueError: for no temperature, or one that is not above 0.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        temperatures: Sequence[float | None] = TEMPERATURES[1],
        weight: float = 0.1,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if not temperatures or not all(t is None or t > 0 for t in temperatures):
            raise ValueError(
                f"csra: temperatures must be one number above 0 for each head, got {temperatures}"
            )
        del dtype  # Scores are computed in float32 at least: their maximum is a choice of place.
        # A 1x1 convolution [k, c, 1, 1] there, so the fan-in is c.
        shape = (len(temperatures), num_features, num_classes)
        self.kernel = nnx.Param(torch_uniform_init(num_features)(rngs.params(), shape))
        self.temperatures = tuple(temperatures)
        self.weight = weight

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `logits` `[b, k]`."""
        del rngs
        tokens = at_least_float32(features.reshape(features.shape[0], -1, features.shape[-1]))
        kernel = self.kernel[...].astype(tokens.dtype)
        squares = jnp.square(kernel).sum(1, keepdims=True)
        kernel = kernel * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0))
        scores = jnp.einsum("bnc,mck->bmnk", tokens, kernel)
        logits = jnp.zeros(scores[:, 0, 0].shape, scores.dtype)
        for head, temperature in enumerate(self.temperatures):
            score = scores[:, head]
            if temperature is None:
                attended = score.max(1)
            else:
                attended = (jax.nn.softmax(temperature * score, axis=1) * score).sum(1)
            logits += score.mean(1) + self.weight * attended
        return {"logits": logits}
