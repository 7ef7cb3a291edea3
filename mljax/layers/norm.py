"""Batch norm as the published systems have it: with an activation, and torch's. Maps are NHWC."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32
from mljax.layers.variables import Frozen


class ActivatedBatchNorm(nnx.Module):
    """Batch norm with a leaky rectifier, with the semantics of in-place activated batch norm.

    `y = leaky((x - mean) / sqrt(var + eps) * (|scale| + eps) + bias)`, statistics over all axes
    but the last, computed in at least float32. Running statistics take the unbiased variance.

    Source: Rota Bulo et al., In-Place Activated BatchNorm, https://arxiv.org/abs/1712.02616;
    mapillary/inplace_abn. Parity: the code, not the paper's text, puts the activation last; the
    gradient of |scale| at 0 is +1, so that gains that start at 0 learn.

    Args:
      num_features: c.
      slope: of the activation below zero; 1 is the identity, 0 the rectifier.
      initial_scale: start of every gain.
      groups: normalize each of this many contiguous slices of the batch by its own statistics, as
        data-parallel training does; the running statistics take their mean.
    """

    def __init__(
        self,
        num_features: int,
        *,
        slope: float,
        initial_scale: float = 1.0,
        eps: float = 1e-5,
        momentum: float = 0.1,
        groups: int = 1,
    ) -> None:
        # With a dtype: a weak one would become strong in the first step, and the next would be
        # compiled anew.
        self.scale = nnx.Param(jnp.full((num_features,), initial_scale, float))
        self.bias = nnx.Param(jnp.zeros((num_features,)))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,)))
        self.var = nnx.BatchStat(jnp.ones((num_features,)))
        self.slope = slope
        self.eps = eps
        self.momentum = momentum
        self.groups = groups
        self.use_running_average = False

    def set_view(
        self, use_running_average: bool | None = None, batch_norm_groups: int | None = None
    ) -> None:
        """Sets what `nnx.view` asks for.

        Args:
          use_running_average: normalize by the running statistics and leave them as they are.
          batch_norm_groups: see `groups`.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average
        if batch_norm_groups is not None:
            self.groups = batch_norm_groups

    def __call__(self, x: Float[Array, "b *d c"]) -> Float[Array, "b *d c"]:
        """Returns the normalized, activated map; in training it moves the running statistics.

        Raises:
          ValueError: in training, for one value a channel, or a batch that `groups` does
            not divide.
        """
        grouped = self._split_groups(at_least_float32(x))
        if self.use_running_average:
            mean, var = self.mean[...][None], self.var[...][None]
        else:
            mean, var = self._batch_statistics(grouped)
        factor = self._gain()[None] * jax.lax.rsqrt(var + self.eps)
        middle = tuple(range(1, grouped.ndim - 1))
        y = (grouped - jnp.expand_dims(mean, middle)) * jnp.expand_dims(factor, middle)
        y = y + jnp.expand_dims(self.bias[...], (0, *middle))
        y = jnp.where(y < 0, y * self.slope, y)
        return y.reshape(x.shape).astype(x.dtype)

    def _gain(self) -> Float[Array, " c"]:
        scale = self.scale[...]
        return jnp.where(scale < 0, -scale, scale) + self.eps

    def _split_groups(self, x: Float[Array, "b *d c"]) -> Float[Array, "g n *d c"]:
        groups = 1 if self.use_running_average else self.groups
        if x.shape[0] % groups:
            raise ValueError(f"batch norm: {groups} groups do not divide the batch of {x.shape[0]}")
        return x.reshape(groups, x.shape[0] // groups, *x.shape[1:])

    def _batch_statistics(
        self, grouped: Float[Array, "g n *d c"]
    ) -> tuple[Float[Array, "g c"], Float[Array, "g c"]]:
        axes = tuple(range(1, grouped.ndim - 1))
        count = grouped[0, ..., 0].size
        if count < 2:
            raise ValueError(
                "batch norm needs more than one value per channel in training, got a map of shape "
                f"{grouped.shape[1:]}: use a larger batch or image"
            )
        mean = grouped.mean(axes, keepdims=True)
        var = jnp.square(grouped - mean).mean(axes)
        mean = mean.reshape(var.shape)
        unbiased = var * (count / (count - 1))
        for stat, new in ((self.mean, mean), (self.var, unbiased)):
            stat[...] = (1 - self.momentum) * stat[...] + self.momentum * new.mean(0)
        return mean, var


class BatchNorm(ActivatedBatchNorm):
    """torch's batch norm: the gain is `scale` itself, and no activation follows.

    `y = (x - mean) / sqrt(var + eps) * scale + bias`; all else as in `ActivatedBatchNorm`.

    Source: torch.nn.BatchNorm2d; Ioffe and Szegedy, Batch Normalization,
    https://arxiv.org/abs/1502.03167, algorithm 1.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, slope=1.0, eps=eps, momentum=momentum)

    def _gain(self) -> Float[Array, " c"]:
        return self.scale[...]


class FrozenBatchNorm(nnx.Module):
    """Batch norm whose gains, biases and statistics stay as they were loaded.

    `y = (x - mean) / sqrt(var + eps) * scale + bias` in every mode, in at least float32.

    Source: torchvision `ops/misc.py`, `FrozenBatchNorm2d`, whose buffers are no parameters either.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5) -> None:
        self.scale = Frozen(jnp.ones((num_features,)))
        self.bias = Frozen(jnp.zeros((num_features,)))
        self.mean = Frozen(jnp.zeros((num_features,)))
        self.var = Frozen(jnp.ones((num_features,)))
        self.eps = eps

    def __call__(self, x: Float[Array, "b *d c"]) -> Float[Array, "b *d c"]:
        """Returns the normalized map."""
        leading = tuple(range(x.ndim - 1))
        factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.eps)
        shift = self.bias[...] - self.mean[...] * factor
        y = at_least_float32(x) * jnp.expand_dims(factor, leading)
        return (y + jnp.expand_dims(shift, leading)).astype(x.dtype)
