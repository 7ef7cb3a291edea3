"""EfficientNetV2, as timm has it: with TensorFlow's padding or torch's.

Tan and Le, EfficientNetV2: Smaller Models and Faster Training, https://arxiv.org/abs/2104.00298,
table 4; huggingface/pytorch-image-models `timm/models/efficientnet.py` (`tf_efficientnetv2_*` and
`efficientnetv2_*`) with `_efficientnet_blocks.py`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.conv import SqueezeExcite, convolution, depthwise_convolution, fold_norm
from mljax.layers.norm import BatchNorm
from mljax.layers.recompute import Blocks


class Unit(nnx.Module):
    """A convolution without bias, batch norm, and SiLU unless the unit is linear.

    Args:
      in_features: channels of the map that it reads.
      out_features: channels of the map that it makes.
      kernel_size: of the convolution, in pixels.
      stride: of the convolution.
      depthwise: each channel has its own kernel; then both numbers of channels are equal.
      activated: SiLU follows.
      same_padding: TensorFlow's, see `mljax.layers.conv.convolution`.
      norm_eps: added to the variance.
      dtype: of the computation; None keeps the map's and the parameters' own.
      rngs: seeds the kernel.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        activated: bool = True,
        same_padding: bool,
        norm_eps: float,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        options = {"stride": stride, "same_padding": same_padding, "dtype": dtype, "rngs": rngs}
        self.conv = (
            depthwise_convolution(out_features, kernel_size, **options)
            if depthwise
            else convolution(in_features, out_features, kernel_size, **options)
        )
        self.norm = BatchNorm(out_features, eps=norm_eps)
        self.activated = activated

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map of `out_features` channels, of 1/stride of the size, rounded up."""
        x = self.norm(self.conv(x))
        return jax.nn.silu(x) if self.activated else x

    folded = fold_norm


class PlainBlock(nnx.Module):
    """One 3x3 convolution with stride 1: the first stage (timm's `ConvBnAct`)."""

    def __init__(
        self, in_features: int, out_features: int, *, make_unit: Callable[..., Unit]
    ) -> None:
        self.conv = make_unit(in_features, out_features, 3)
        self.residual = in_features == out_features

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """Returns the map, with `x` added where it has as many channels."""
        y = self.conv(x)
        return x + y if self.residual else y


class FusedBlock(nnx.Module):
    """A 3x3 convolution to `expansion` times the channels, then 1x1 (timm's `EdgeResidual`)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        stride: int,
        expansion: int,
        make_unit: Callable[..., Unit],
    ) -> None:
        width = in_features * expansion
        self.expand = make_unit(in_features, width, 3, stride=stride)
        self.project = make_unit(width, out_features, 1, activated=False)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map, of 1/stride of the size, with `x` added where it has that shape."""
        y = self.project(self.expand(x))
        return x + y if self.residual else y


class InvertedBlock(nnx.Module):
    """1x1, depthwise 3x3, channel attention, 1x1 (timm's `InvertedResidual`).

    The inner width of the attention is a quarter of the block's, not of the attention's, input.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        stride: int,
        expansion: int,
        make_unit: Callable[..., Unit],
        make_attention: Callable[..., SqueezeExcite],
    ) -> None:
        width = in_features * expansion
        self.expand = make_unit(in_features, width, 1)
        self.depthwise = make_unit(width, width, 3, stride=stride, depthwise=True)
        self.squeeze_excite = make_attention(width, in_features // 4)
        self.project = make_unit(width, out_features, 1, activated=False)
        self.residual = stride == 1 and in_features == out_features

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map, of 1/stride of the size, with `x` added where it has that shape."""
        y = self.project(self.squeeze_excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class EfficientNetV2(nnx.Module):
    """Stem, six or seven stages and a 1x1 convolution; the map has 1/32 of the image's size.

    Stages are, in order: plain (stride 1), fused (stride 2, expansion 4) twice, inverted (stride 2,
    expansion 4), inverted (stride 1, expansion 6), inverted (stride 2, expansion 6) and, in M and
    L, inverted (stride 1, expansion 6). All activations are SiLU.

    Kernels start with N(0, sqrt(2 / fan_out)), gains with 1, biases with 0.

    Differs from the reference: without stochastic depth, which Deep Object ReID does not use and
    which timm has off unless asked.

    Args:
      layers: number of blocks in each stage.
      widths: channels that each stage makes.
      stem_width: channels of the stem.
      num_features: channels of the map.
      same_padding: TensorFlow's padding, as timm's `tf_efficientnetv2_*` have it; False is torch's,
        as `efficientnetv2_*`. They differ where the stride is 2.
      norm_eps: added to the variance in batch norm; 1e-5 in timm's `efficientnetv2_*`.
      dtype: of the computation; None keeps the images' and parameters' own.

    Attributes:
      num_features: channels of the map.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int] = (2, 4, 4, 6, 9, 15),
        widths: Sequence[int] = (24, 48, 64, 128, 160, 256),
        stem_width: int = 24,
        num_features: int = 1280,
        same_padding: bool = True,
        norm_eps: float = 1e-3,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if len(layers) not in (6, 7) or len(widths) != len(layers):
            raise ValueError(
                "EfficientNetV2 has 6 or 7 stages; layers and widths need an entry for each, got "
                f"{layers} and {widths}"
            )
        make_unit = functools.partial(
            Unit, same_padding=same_padding, norm_eps=norm_eps, dtype=dtype, rngs=rngs
        )
        make_attention = functools.partial(
            SqueezeExcite,
            activation=jax.nn.silu,
            bias_init=nnx.initializers.zeros,
            dtype=dtype,
            rngs=rngs,
        )
        plain = functools.partial(PlainBlock, make_unit=make_unit)
        fused = functools.partial(FusedBlock, expansion=4, make_unit=make_unit)
        inverted = functools.partial(
            InvertedBlock, make_unit=make_unit, make_attention=make_attention
        )
        self.stem = make_unit(3, stem_width, 3, stride=2)
        features = stem_width
        stages = []
        for stage, (count, width) in enumerate(zip(layers, widths, strict=True)):
            blocks = []
            for index in range(count):
                stride = 2 if stage in (1, 2, 3, 5) and index == 0 else 1
                if stage == 0:
                    block = plain(features, width)
                elif stage < 3:
                    block = fused(features, width, stride=stride)
                else:
                    expansion = 4 if stage == 3 else 6
                    block = inverted(features, width, stride=stride, expansion=expansion)
                blocks.append(block)
                features = width
            stages.append(Blocks(blocks))
        self.stages = nnx.List(stages)
        self.last = make_unit(features, num_features, 1)
        self.same_padding = same_padding
        self.num_features = num_features

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b i j c"]:
        """Returns the feature map of normalized images of any size."""
        x = self.stem(images)
        for blocks in self.stages:
            x = blocks(x)
        return self.last(x)


efficientnet_v2_b0 = functools.partial(
    EfficientNetV2,
    layers=(1, 2, 2, 3, 5, 8),
    widths=(16, 32, 48, 96, 112, 192),
    stem_width=32,
)
efficientnet_v2_s = functools.partial(
    EfficientNetV2, layers=(2, 4, 4, 6, 9, 15), widths=(24, 48, 64, 128, 160, 256)
)
efficientnet_v2_m = functools.partial(
    EfficientNetV2, layers=(3, 5, 5, 7, 14, 18, 5), widths=(24, 48, 80, 160, 176, 304, 512)
)
efficientnet_v2_l = functools.partial(
    EfficientNetV2,
    layers=(4, 7, 7, 10, 19, 25, 7),
    widths=(32, 64, 96, 192, 224, 384, 640),
    stem_width=32,
)
