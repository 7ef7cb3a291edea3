"""KMCL's head: one Gaussian kernel per class, and the classifier that is trained beside them."""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32, torch_uniform_init


class KernelMixture(nnx.Module):
    """Global average pooling, then logits and one Gaussian kernel per class.

    The kernels live in the space of the vector v `[b, d]` that enters the three linear layers. With
    an anisotropic covariance a kernel has a mean and a variance for each dimension of v, which a
    linear layer first reduces to `reduced_features`; with an isotropic one it has a single mean
    and variance for all dimensions, and v is the pooled map itself. The similarity says who shares
    the variances, and nothing else:

    | similarity | variances, anisotropic | variances, isotropic |
    |---|---|---|
    | bhattacharyya: every class its own | `[b, d, k]` | `[b, 1, k]` |
    | mahalanobis: one per dimension | `[b, d, 1]` | `[b, d, 1]` |
    | rbf: one | `[b, 1, 1]` | `[b, 1, 1]` |

    Prediction uses the logits alone. Source: KMCL, https://arxiv.org/abs/2307.03967;
    mahdihosseini/KMCL Kmcl_Class.py.

    Differs from the reference:
      - All six pairs work. There, the isotropic Mahalanobis loss raises, and so does the
        anisotropic RBF loss, except when the batch size equals d, where it takes the image's
        index for the dimension's.
      - Everything is computed in true float32 at least, whatever `dtype`: variances enter the
        exponent of a similarity times up to 2048, which half precision turns into nan or noise.
      - A batch of one keeps its axis.
      - The TResNet's own classifier, which KMCL's checkpoints carry unused (`encoder.head.fc`),
        does not exist.

    Args:
      covariance: "anisotropic": a mean and a variance per dimension; "isotropic": one for all.
      similarity: "bhattacharyya", "mahalanobis" or "rbf": who shares the variances, see above.
      asymmetric_only: logits alone, to train with `asymmetric_loss` only (`--loss-opt ASLOnly`).
        An anisotropic head keeps its reduction.
      reduced_features: width after the reduction of an anisotropic head; the original has 128.

    Raises:
      ValueError: for an unknown covariance or similarity.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        covariance: str = "anisotropic",
        similarity: str = "bhattacharyya",
        asymmetric_only: bool = False,
        reduced_features: int = 128,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        _check("covariance", covariance, ("anisotropic", "isotropic"))
        _check("similarity", similarity, ("bhattacharyya", "mahalanobis", "rbf"))
        dtype = None if dtype is None else jnp.promote_types(dtype, jnp.float32)

        def linear(
            inputs: int, outputs: int, kernel_init: nnx.Initializer, bias_init: nnx.Initializer
        ) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                kernel_init=kernel_init,
                bias_init=bias_init,
                dtype=dtype,
                precision=lax.Precision.HIGHEST,
                rngs=rngs,
            )

        anisotropic = covariance == "anisotropic"
        width = reduced_features if anisotropic else num_features
        init = torch_uniform_init(num_features)
        self.down_sampler = nnx.data(None)
        if anisotropic:
            self.down_sampler = linear(num_features, width, init, init)
            init = torch_uniform_init(width)
        self.pi = linear(width, num_classes, init, init)
        self.mean = self.var = nnx.data(None)
        # Parity: the flat outputs of an anisotropic layer run over classes first.
        self.mean_shape = (width if anisotropic else 1, num_classes)
        self.variance_shape = {
            "bhattacharyya": self.mean_shape,
            "mahalanobis": (width, 1),
            "rbf": (1, 1),
        }[similarity]
        if asymmetric_only:
            return
        zeros, ones = nnx.initializers.zeros, nnx.initializers.ones
        uniform = nnx.initializers.uniform(0.1)
        mean_outputs = self.mean_shape[0] * self.mean_shape[1]
        variance_outputs = self.variance_shape[0] * self.variance_shape[1]
        self.mean = linear(width, mean_outputs, uniform, zeros)
        self.var = linear(width, variance_outputs, ones, zeros)

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns what the three losses of KMCL read, float32 at least.

        `logits` `[b, k]` and `features` `[b, d]`, the vector that the kernels are compared with;
        unless `asymmetric_only`, `means` `[b, d|1, k]` and `variances` `[b, d|1, k|1]`, which are
        at least 1.
        """
        del rngs
        vector = at_least_float32(features).mean((1, 2))
        if self.down_sampler is not None:
            vector = self.down_sampler(vector)
        outputs = {"logits": self.pi(vector), "features": vector}
        if self.mean is not None and self.var is not None:
            outputs["means"] = self.mean(vector).reshape(-1, *self.mean_shape)
            variances = 2.0000001 + nnx.elu(self.var(vector))
            outputs["variances"] = variances.reshape(-1, *self.variance_shape)
        return outputs


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"argument {name!r} of the head kernel_mixture: got {value!r}, "
            f"expected one of {', '.join(choices)}"
        )
