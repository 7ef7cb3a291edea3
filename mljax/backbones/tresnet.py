"""TResNet: a residual network made for GPU throughput.

Ridnik et al., TResNet: High Performance GPU-Dedicated Architecture,
https://arxiv.org/abs/2003.13630; `src/models/tresnet/tresnet.py` of Alibaba-MIIL/ASL.
"""

import functools
from collections.abc import Sequence

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.conv import ConvNorm, SqueezeExcite
from mljax.layers.pooling import blur_pool, ceil_average_pool, space_to_depth
from mljax.layers.recompute import Blocks


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions; the first is followed by the blur-pool where the stride is 2."""

    expansion = 1

    def __init__(
        self,
        in_features: int,
        planes: int,
        *,
        stride: int,
        squeeze_excite: bool,
        slope: float,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv1 = ConvNorm(in_features, planes, 3, slope=slope, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(
            planes, planes, 3, slope=1.0, initial_scale=0.0, dtype=dtype, rngs=rngs
        )
        self.shortcut = _make_shortcut(in_features, planes, stride, dtype, rngs)
        attention = SqueezeExcite(planes, max(planes // 4, 64), dtype=dtype, rngs=rngs)
        self.squeeze_excite = attention if squeeze_excite else None
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map, of half the size where the stride is 2."""
        y = self.conv1(x)
        if self.stride == 2:
            y = blur_pool(y)
        y = self.conv2(y)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return jax.nn.relu(y + _shortcut(self, x))


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions; attention and blur-pool follow the second."""

    expansion = 4

    def __init__(
        self,
        in_features: int,
        planes: int,
        *,
        stride: int,
        squeeze_excite: bool,
        slope: float,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        out_features = planes * self.expansion
        self.conv1 = ConvNorm(in_features, planes, 1, slope=slope, dtype=dtype, rngs=rngs)
        self.conv2 = ConvNorm(planes, planes, 3, slope=slope, dtype=dtype, rngs=rngs)
        self.conv3 = ConvNorm(
            planes, out_features, 1, slope=1.0, initial_scale=0.0, dtype=dtype, rngs=rngs
        )
        self.shortcut = _make_shortcut(in_features, out_features, stride, dtype, rngs)
        attention = SqueezeExcite(planes, max(planes // 2, 64), dtype=dtype, rngs=rngs)
        self.squeeze_excite = attention if squeeze_excite else None
        self.stride = stride

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map, of half the size where the stride is 2."""
        y = self.conv2(self.conv1(x))
        if self.stride == 2:
            y = blur_pool(y)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        return jax.nn.relu(self.conv3(y) + _shortcut(self, x))


def _make_shortcut(
    in_features: int, out_features: int, stride: int, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> ConvNorm | None:
    if stride == 1 and in_features == out_features:
        return None
    return ConvNorm(in_features, out_features, 1, slope=1.0, dtype=dtype, rngs=rngs)


def _shortcut(block: BasicBlock | Bottleneck, x: Float[Array, "b h w c"]) -> Array:
    if block.stride == 2:
        x = ceil_average_pool(x)
    return x if block.shortcut is None else block.shortcut(x)


class TResNet(nnx.Module):
    """The four stages behind a space-to-depth stem; the map has 1/32 of the image's size.

    The published variants are in `mljax.backbones.BACKBONES`; others follow from the arguments:
    S is `layers=(3, 4, 6, 3)`, ML-Decoder's XL is `layers=(3, 8, 34, 5)` with Bottleneck blocks
    everywhere.

    Args:
      layers: number of blocks in each stage.
      width: channels of the stem, the originals' `int(64 * width_factor)`.
      bottleneck_stages: for each stage, Bottleneck (True) or Basic blocks.
      stem_slope: of the stem's leaky rectifier.
      block_slope: of those within blocks. The L_V2 of the TResNet repository alone has 1e-6 for
        both slopes; a state dict does not show it.
      dtype: of the computation; None keeps the images' and parameters' own.

    Attributes:
      num_features: channels of the map.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int] = (3, 4, 11, 3),
        width: int = 64,
        bottleneck_stages: Sequence[bool] = (False, False, True, True),
        stem_slope: float = 1e-2,
        block_slope: float = 1e-3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if len(layers) != 4 or len(bottleneck_stages) != 4:
            raise ValueError(
                "TResNet has 4 stages; layers and bottleneck_stages need 4 entries each, got "
                f"{layers} and {bottleneck_stages}"
            )
        self.stem = ConvNorm(48, width, 3, slope=stem_slope, dtype=dtype, rngs=rngs)
        features = width
        stages = []
        for stage, (count, bottleneck) in enumerate(zip(layers, bottleneck_stages, strict=True)):
            block_type = Bottleneck if bottleneck else BasicBlock
            planes = width * 2**stage
            blocks = []
            for index in range(count):
                block = block_type(
                    features,
                    planes,
                    stride=2 if stage > 0 and index == 0 else 1,
                    squeeze_excite=stage < 3,
                    slope=block_slope,
                    dtype=dtype,
                    rngs=rngs,
                )
                blocks.append(block)
                features = planes * block_type.expansion
            stages.append(Blocks(blocks))
        self.stages = nnx.List(stages)
        self.num_features = features

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b i j c"]:
        """Returns the feature map of images in [0, 1] whose sides are multiples of 4."""
        x = self.stem(space_to_depth(images))
        for blocks in self.stages:
            x = blocks(x)
        return x


tresnet_m = functools.partial(TResNet, layers=(3, 4, 11, 3))
tresnet_l = functools.partial(TResNet, layers=(4, 5, 18, 3), width=76)
tresnet_xl = functools.partial(TResNet, layers=(4, 5, 24, 3), width=83)
tresnet_l_v2 = functools.partial(
    TResNet, layers=(3, 4, 23, 3), bottleneck_stages=(True, True, True, True)
)
