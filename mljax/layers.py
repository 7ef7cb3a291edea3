"""Blocks that several networks share. Feature maps are NHWC."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def _on_host(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> nnx.Initializer:
    """Returns an initializer whose numbers are drawn by numpy.

    XLA would compile a random generator for every array: most of a minute for a TResNet, whose
    numbers numpy draws in a second.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        def call(seed: Array) -> np.ndarray:
            return draw(np.random.default_rng(np.asarray(seed)), shape).astype(dtype)

        seed = jax.random.key_data(key)
        return jax.pure_callback(call, jax.ShapeDtypeStruct(shape, dtype), seed)

    return init


def normal_init(std: float) -> nnx.Initializer:
    """Returns the initializer N(0, std)."""
    return _on_host(lambda rng, shape: np.float32(std) * rng.standard_normal(shape, np.float32))


def kaiming_fan_out(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """Initializes a kernel `[..., in, out]` with N(0, sqrt(2 / fan_out))."""
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return normal_init((2 / fan_out) ** 0.5)(key, shape, dtype)


def torch_uniform_init(fan_in: int) -> nnx.Initializer:
    """Returns torch's default initializer of a linear layer: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5
    return _on_host(lambda rng, shape: rng.uniform(-bound, bound, shape))


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `x` in float32, or in float64 if it is that already."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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
        self.scale = nnx.Param(jnp.full((num_features,), initial_scale))
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


def convolution(
    in_features: int,
    out_features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a convolution without bias, padded by half its kernel on each side."""
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        strides=stride,
        # Written out: "SAME" pads less before than after where the stride is 2.
        padding=kernel_size // 2,
        use_bias=False,
        kernel_init=kaiming_fan_out,
        conv_general_dilated=_pointwise if kernel_size == 1 else lax.conv_general_dilated,
        dtype=dtype,
        rngs=rngs,
    )


def _pointwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "1 1 c d"],
    strides: tuple[int, int],
    *_: object,
    precision: lax.PrecisionLike = None,
    **__: object,
) -> Float[Array, "b i j d"]:
    """Convolves by a 1 x 1 kernel as a matrix product, which XLA runs twice as fast on the CPU."""
    x = x[:, :: strides[0], :: strides[1]]
    return jnp.matmul(x, kernel[0, 0], precision=precision)


class ConvNorm(nnx.Module):
    """A convolution without bias, stride 1 and same size, then `ActivatedBatchNorm`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        slope: float,
        initial_scale: float = 1.0,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = convolution(in_features, out_features, kernel_size, dtype=dtype, rngs=rngs)
        self.norm = ActivatedBatchNorm(out_features, slope=slope, initial_scale=initial_scale)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Returns the map of `out_features` channels."""
        return self.norm(self.conv(x))


class SqueezeExcite(nnx.Module):
    """Channel attention from the mean over space.

    Source: Hu et al., Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, eq. 3.
    """

    def __init__(
        self,
        num_features: int,
        reduced_features: int,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                kernel_init=kaiming_fan_out,
                bias_init=torch_uniform_init(inputs),
                dtype=dtype,
                rngs=rngs,
            )

        self.reduce = linear(num_features, reduced_features)
        self.expand = linear(reduced_features, num_features)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns `x` with each channel multiplied by its attention in (0, 1)."""
        pooled = at_least_float32(x).mean((1, 2)).astype(x.dtype)
        attention = jax.nn.sigmoid(self.expand(jax.nn.relu(self.reduce(pooled))))
        return x * attention[:, None, None, :]


def space_to_depth(x: Float[Array, "b h w c"], block: int = 4) -> Float[Array, "b i j d"]:
    """Moves each `block` x `block` square of pixels into the channels, row first, then column.

    Raises:
      ValueError: for a height or width that `block` does not divide.
    """
    b, h, w, c = x.shape
    if h % block or w % block:
        raise ValueError(
            f"images: height and width must be multiples of {block}, got {h} x {w}; resize them"
        )
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block * block * c)


def blur_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Halves height and width (rounded up) behind the filter [1, 2, 1] x [1, 2, 1] / 16.

    The border is reflected. Strided slices and additions replace the depthwise convolution, which
    XLA runs slowly on the CPU.

    Source: Zhang, Making Convolutional Networks Shift-Invariant Again,
    https://arxiv.org/abs/1904.11486; `AADownsample` of Alibaba-MIIL/TResNet.

    Raises:
      ValueError: for a map of height or width 1, which has nothing to reflect.
    """
    if min(x.shape[1:3]) < 2:
        raise ValueError(
            f"blur_pool: the map must be at least 2 x 2, got {x.shape[1]} x {x.shape[2]}; "
            "use larger images (a TResNet needs 20 pixels a side)"
        )
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    x = x[:, :-2:2] + 2 * x[:, 1:-1:2] + x[:, 2::2]
    return (x[:, :, :-2:2] + 2 * x[:, :, 1:-1:2] + x[:, :, 2::2]) / 16


def ceil_average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Averages 2 x 2 squares; an odd last row or column is averaged over the pixels that exist."""
    b, h, w, c = x.shape
    odd_h, odd_w = h % 2, w % 2
    x = jnp.pad(x, ((0, 0), (0, odd_h), (0, odd_w), (0, 0)), mode="edge")
    return x.reshape(b, (h + odd_h) // 2, 2, (w + odd_w) // 2, 2, c).mean((2, 4))
