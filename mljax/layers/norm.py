"""Batch norm as the published systems have it: with an activation, and torch's. Maps are NHWC."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32, filled, on_host
from mljax.layers.variables import Frozen

Statistics = Float[Array, "g c"]
Values = Float[Array | np.ndarray, " c"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_batch(
    x: Float[Array, "g n *d c"],
    gain: Float[Array, " c"],
    bias: Float[Array, " c"],
    eps: float,
    slope: float,
) -> tuple[Float[Array, "g n *d c"], Statistics, Statistics]:
    """Normalizes each group by its own statistics; returns these too, the variance biased.

    `y = leaky((x - mean) / sqrt(var + eps) * gain + bias)`. Its gradient is written out: it keeps
    nothing of the size of `x` but `x`, computes the activation again, and needs two sums. No
    gradient goes through the statistics that it returns.

    Source: Rota Bulo et al., In-Place Activated BatchNorm, https://arxiv.org/abs/1712.02616,
    equations 5 to 8, from the input in place of the output.

    Args:
      x: n maps in each of g groups.
      gain: of each channel.
      bias: of each channel, behind the gain.
      eps: added to the variance.
      slope: of the activation below zero.
    """
    return _normalize_and_keep(x, gain, bias, eps, slope)[0]


def _normalize_and_keep(
    x: Float[Array, "g n *d c"],
    gain: Float[Array, " c"],
    bias: Float[Array, " c"],
    eps: float,
    slope: float,
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    mean, var = _mean_and_variance(x)
    y = _leaky(_affine(x, mean, var, gain, bias, eps), slope).astype(x.dtype)
    return (y, mean, var), (x, gain, bias, mean, var)


def _pull_back(
    eps: float, slope: float, kept: tuple[Array, ...], cotangents: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    x, gain, bias, mean, var = kept
    axes = tuple(range(1, x.ndim - 1))
    shrink = jax.lax.rsqrt(var + eps)
    standard = (at_least_float32(x) - _over(mean, x)) * _over(shrink, x)
    dy = at_least_float32(cotangents[0])
    dz = jnp.where(_affine(x, mean, var, gain, bias, eps) < 0, dy * slope, dy)
    dbias, dgain = dz.sum(axes), (dz * standard).sum(axes)
    count = x[0, ..., 0].size
    dx = dz - _over(dbias / count, x) - standard * _over(dgain / count, x)
    dx *= _over(gain[None] * shrink, x)
    return dx.astype(x.dtype), dgain.sum(0), dbias.sum(0)


normalize_batch.defvjp(_normalize_and_keep, _pull_back)


def _mean_and_variance(x: Float[Array, "g n *d c"]) -> tuple[Statistics, Statistics]:
    """Returns mean and biased variance of each channel, in one pass over the maps.

    The pass sums differences from the mean of each group's first map. That is at most sqrt(n)
    standard deviations from the mean, so that rounding grows by n at most, however large the mean.
    """
    axes = tuple(range(1, x.ndim - 1))
    wide = at_least_float32(x)
    near = wide[:, :1].mean(axes)
    away = wide - _over(near, x)
    offset = away.mean(axes)
    var = jnp.square(away).mean(axes) - jnp.square(offset)
    return near + offset, jnp.maximum(var, 0)


def _affine(
    x: Float[Array, "g n *d c"],
    mean: Statistics,
    var: Statistics,
    gain: Float[Array, " c"],
    bias: Float[Array, " c"],
    eps: float,
) -> Float[Array, "g n *d c"]:
    """Returns what the activation reads."""
    factor = gain[None] * jax.lax.rsqrt(var + eps)
    return (at_least_float32(x) - _over(mean, x)) * _over(factor, x) + _over(bias[None], x)


def _over(values: Float[Array, "_ c"], x: Float[Array, "g n *d c"]) -> Array:
    """Returns one value a group and channel with the axes of the maps."""
    return jnp.expand_dims(values, tuple(range(1, x.ndim - 1)))


def _leaky(z: Float[Array, "..."], slope: float) -> Float[Array, "..."]:
    return jnp.where(z < 0, z * slope, z)


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
        self.scale = nnx.Param(filled((num_features,), initial_scale))
        self.bias = nnx.Param(filled((num_features,), 0.0))
        self.mean = nnx.BatchStat(filled((num_features,), 0.0))
        self.var = nnx.BatchStat(filled((num_features,), 1.0))
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
        if self.use_running_average:
            return self._normalize(x)
        grouped = self._split_groups(x)
        found: Any = normalize_batch(grouped, self._gain(), self.bias[...], self.eps, self.slope)
        y, mean, var = found
        count = grouped[0, ..., 0].size
        unbiased = var * (count / (count - 1))
        for stat, new in ((self.mean, mean), (self.var, unbiased)):
            stat[...] = (1 - self.momentum) * stat[...] + self.momentum * new.mean(0)
        return y.reshape(x.shape)

    def _normalize(self, x: Float[Array, "b *d c"]) -> Float[Array, "b *d c"]:
        """Normalizes by the running statistics."""
        mean, var = self.mean[...][None], self.var[...][None]
        z = _affine(x[None], mean, var, self._gain(), self.bias[...], self.eps)
        return _leaky(z, self.slope)[0].astype(x.dtype)

    def affine(self) -> tuple[Values, Values]:
        """Returns factor and shift: `leaky(x * factor + shift)` is the map in eval mode."""
        return _factor_and_shift(self, abs(on_host(self.scale[...])) + self.eps)

    def _gain(self) -> Float[Array, " c"]:
        scale = self.scale[...]
        return jnp.where(scale < 0, -scale, scale) + self.eps

    def _split_groups(self, x: Float[Array, "b *d c"]) -> Float[Array, "g n *d c"]:
        if x.shape[0] % self.groups:
            raise ValueError(
                f"batch norm: {self.groups} groups do not divide the batch of {x.shape[0]}"
            )
        grouped = x.reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:])
        if grouped[0, ..., 0].size < 2:
            raise ValueError(
                "batch norm needs more than one value per channel in training, got a map of shape "
                f"{grouped.shape[1:]}: use a larger batch or image"
            )
        return grouped


class BatchNorm(ActivatedBatchNorm):
    """torch's batch norm: the gain is `scale` itself, and no activation follows.

    `y = (x - mean) / sqrt(var + eps) * scale + bias`; all else as in `ActivatedBatchNorm`.

    Source: torch.nn.BatchNorm2d; Ioffe and Szegedy, Batch Normalization,
    https://arxiv.org/abs/1502.03167, algorithm 1.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, slope=1.0, eps=eps, momentum=momentum)

    def affine(self) -> tuple[Values, Values]:
        """Returns factor and shift: `x * factor + shift` is the map in eval mode."""
        return _factor_and_shift(self, on_host(self.scale[...]))

    def _gain(self) -> Float[Array, " c"]:
        return self.scale[...]


class FrozenBatchNorm(nnx.Module):
    """Batch norm whose gains, biases and statistics stay as they were loaded.

    `y = (x - mean) / sqrt(var + eps) * scale + bias` in every mode, in at least float32.

    Source: torchvision `ops/misc.py`, `FrozenBatchNorm2d`, whose buffers are no parameters either.
    """

    slope = 1.0

    def __init__(self, num_features: int, *, eps: float = 1e-5) -> None:
        self.scale = Frozen(filled((num_features,), 1.0))
        self.bias = Frozen(filled((num_features,), 0.0))
        self.mean = Frozen(filled((num_features,), 0.0))
        self.var = Frozen(filled((num_features,), 1.0))
        self.eps = eps

    def __call__(self, x: Float[Array, "b *d c"]) -> Float[Array, "b *d c"]:
        """Returns the normalized map."""
        leading = tuple(range(x.ndim - 1))
        factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.eps)
        shift = self.bias[...] - self.mean[...] * factor
        y = at_least_float32(x) * jnp.expand_dims(factor, leading)
        return (y + jnp.expand_dims(shift, leading)).astype(x.dtype)

    def affine(self) -> tuple[Values, Values]:
        """Returns factor and shift: `x * factor + shift` is the map."""
        return _factor_and_shift(self, on_host(self.scale[...]))


def _factor_and_shift(
    norm: ActivatedBatchNorm | FrozenBatchNorm, gain: Values
) -> tuple[Values, Values]:
    bias, mean, var = (on_host(each[...]) for each in (norm.bias, norm.mean, norm.var))
    factor = gain * (var + norm.eps) ** -0.5
    return factor, bias - mean * factor
