"""Linear layers on unit vectors, whose outputs are cosines."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32, normal_init

_SHORTEST = 1e-12


def normalize(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """Returns `x` divided by its length along an axis, or by 1e-12 where it is shorter.

    As torch's F.normalize: zeros stay zeros, and pass 1e12 times the gradient.
    """
    squares = (x * x).sum(axis, keepdims=True)
    # The root of zero has no finite gradient, not even one that nothing uses.
    some = squares > 0
    length = jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)
    return x / jnp.maximum(length, _SHORTEST)


def clip_cosine(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `x` clipped to [-1, 1]; the gradient passes inside and at both ends.

    As torch's clamp. `jnp.clip` passes half of it at the ends.
    """
    return jnp.where(jnp.abs(x) <= 1, x, lax.stop_gradient(jnp.sign(x)))


def check_scale(scale: float) -> float:
    """Returns the scale of a head's cosines.

    Raises:
      ValueError: for one that is not above 0.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    return scale


def scaled(cosines: Float[Array, "b k"], scale: float) -> dict[str, Array]:
    """Returns what a head of cosines gives: `logits`, `cosines` and `scale`.

    Logits are the scale times the cosines, so that their sigmoid is the score.

    Args:
      cosines: in float32 at least.
      scale: s of the angular margin losses.
    """
    factor = jnp.asarray(scale, cosines.dtype)
    return {"logits": factor * cosines, "cosines": cosines, "scale": factor}


def cosines(x: Float[Array, "b d"], kernel: Float[Array, "d k"]) -> Float[Array, "b k"]:
    """Returns the cosine of each row of `x` with each column of `kernel`, in float32 at least."""
    x, kernel = at_least_float32(x), at_least_float32(kernel)
    unit = normalize(x, 1), normalize(kernel, 0)
    return clip_cosine(jnp.matmul(*unit, precision=lax.Precision.HIGHEST))


class CosineLinear(nnx.Module):
    """A linear layer without bias whose outputs are the cosines of inputs and weight vectors.

    `AngleSimpleLinear` of tosfaq/deep-object-reid am_softmax.py; Prokofiev and Sovrasov, "Combining
    Metric Learning and Attention Heads", https://arxiv.org/abs/2209.06585, section 3.1. It starts
    with N(0, 1), each weight vector scaled to length 1. An input of zeros gives cosines of 0, and a
    gradient of the order 1e12.

    Differs from the reference: computes in float32 at least, because losses multiply cosines by a
    scale of 10 to 30; mixed precision has half-precision cosines there.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs) -> None:
        kernel = normal_init(1.0)(rngs.params(), (in_features, out_features))
        self.kernel = nnx.Param(normalize(kernel, 0))

    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b k"]:
        """Returns the cosines, in [-1, 1]."""
        return cosines(x, self.kernel[...])
