"""Convolutions and channel attention. Feature maps are NHWC."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.init import (
    at_least_float32,
    kaiming_fan_out,
    normal_init,
    on_host,
    torch_uniform_init,
)
from mljax.layers.norm import ActivatedBatchNorm
from mljax.layers.recompute import CONVOLVED


def convolution(
    in_features: int,
    out_features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    same_padding: bool = False,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a convolution without bias, padded by half its kernel on each side.

    Args:
      in_features: channels of the map that it reads.
      out_features: channels of the map that it makes.
      kernel_size: height and width of the kernel in pixels.
      stride: pixels between two places of the kernel.
      same_padding: TensorFlow's "SAME" instead: of the rows that fill the last place up, the
        smaller half stands before the map. It differs where the stride is 2.
      dtype: of the computation; None keeps the map's and the kernel's own.
      rngs: seeds the kernel.
    """
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        strides=stride,
        padding="SAME" if same_padding else kernel_size // 2,
        use_bias=False,
        kernel_init=kaiming_fan_out,
        conv_general_dilated=_pointwise if kernel_size == 1 else lax.conv_general_dilated,
        dtype=dtype,
        rngs=rngs,
    )


def depthwise_convolution(
    num_features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    same_padding: bool = False,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a convolution of each channel by its own kernel, without bias; see `convolution`."""
    return nnx.Conv(
        num_features,
        num_features,
        (kernel_size, kernel_size),
        strides=stride,
        padding="SAME" if same_padding else kernel_size // 2,
        feature_group_count=num_features,
        use_bias=False,
        kernel_init=normal_init((2 / kernel_size**2) ** 0.5),
        conv_general_dilated=_depthwise,
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
    for axis, stride in enumerate(strides, 1):
        if stride > 1:
            x = lax.slice_in_dim(x, 0, None, stride, axis)
    return jnp.matmul(x, kernel[0, 0], precision=precision)


def _depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "n m 1 c"],
    strides: tuple[int, int],
    padding: str | Sequence[tuple[int, int]],
    **keywords: Any,  # noqa: ANN401
) -> Float[Array, "b i j c"]:
    """Convolves each channel by its own kernel: on the CPU as a sum of shifted products.

    XLA's grouped convolution takes 7 to 26 times as long there, 11 to 29 with its gradient
    (`benchmarks/depthwise.py`, `docs/costs.md`). Elsewhere the vendor's library computes it, which
    was not measured.
    """

    def shifted(x: Float[Array, "b h w c"], kernel: Float[Array, "n m 1 c"]) -> Array:
        pads = padding
        if isinstance(pads, str):
            pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, pads)
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        rows, columns = (
            range(0, side - size + 1, stride)
            for side, size, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
        )
        taps = (
            kernel[i, j][None, None]
            * x[:, i :: strides[0], j :: strides[1]][:, : len(rows), : len(columns)]
            for i, j in np.ndindex(kernel.shape[:2])
        )
        return functools.reduce(jnp.add, taps)

    def grouped(x: Float[Array, "b h w c"], kernel: Float[Array, "n m 1 c"]) -> Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **keywords)

    return checkpoint_name(
        lax.platform_dependent(x, kernel, cpu=shifted, default=grouped), CONVOLVED
    )


class LeakyRelu(nnx.Module):
    """What is left of a batch norm whose factor and shift are in the convolution before it."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns `x`, times the slope where it is negative."""
        return x if self.slope == 1 else jax.nn.leaky_relu(x, self.slope)


def fold_norm(unit: Any) -> Any:  # noqa: ANN401
    """Returns a unit of `conv`, then `norm`, with one convolution in place of both.

    The norm is an `ActivatedBatchNorm`, a `BatchNorm` or a `FrozenBatchNorm`. Its statistics become
    a bias and a factor of each kernel, which are computed in float32 at least.
    """
    factor, shift = unit.norm.affine()
    folded = nnx.clone(unit, variables=False)
    folded.conv.kernel = nnx.Param(
        jax.device_put(on_host(unit.conv.kernel[...]) * factor[None, None, None])
    )
    folded.conv.bias, folded.conv.use_bias = nnx.Param(jax.device_put(shift)), True
    folded.norm = LeakyRelu(unit.norm.slope)
    return folded


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

    folded = fold_norm


class SqueezeExcite(nnx.Module):
    """Channel attention from the mean over space.

    Source: Hu et al., Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507, eq. 3.

    Args:
      num_features: channels of the map.
      reduced_features: width between the two layers.
      activation: between them.
      bias_init: of both biases; None is torch's.
      dtype: of the computation; None keeps the map's and the parameters' own.
      rngs: seeds the parameters.
    """

    def __init__(
        self,
        num_features: int,
        reduced_features: int,
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        bias_init: nnx.Initializer | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                kernel_init=kaiming_fan_out,
                bias_init=bias_init or torch_uniform_init(inputs),
                dtype=dtype,
                rngs=rngs,
            )

        self.reduce = linear(num_features, reduced_features)
        self.expand = linear(reduced_features, num_features)
        self.activation = activation

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Returns `x` with each channel multiplied by its attention in (0, 1)."""
        pooled = at_least_float32(x).mean((1, 2)).astype(x.dtype)
        attention = jax.nn.sigmoid(self.expand(self.activation(self.reduce(pooled))))
        return x * attention[:, None, None, :]
