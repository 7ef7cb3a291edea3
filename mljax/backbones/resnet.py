"""ResNet, as torchvision has it for ImageNet and SupContrast for CIFAR.

He et al., Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, table 1;
the stride of a Bottleneck is in its 3x3 convolution. torchvision `models/resnet.py`;
HobbitLong/SupContrast `networks/resnet_big.py`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.conv import convolution, fold_norm
from mljax.layers.norm import BatchNorm, FrozenBatchNorm
from mljax.layers.recompute import Blocks


class Unit(nnx.Module):
    """A convolution without bias, padded by half its kernel on each side, then batch norm."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        stride: int = 1,
        frozen_norm: bool = False,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = convolution(
            in_features, out_features, kernel_size, stride=stride, dtype=dtype, rngs=rngs
        )
        self.norm = (FrozenBatchNorm if frozen_norm else BatchNorm)(out_features)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map of `out_features` channels, of 1/stride of the size, rounded up."""
        return self.norm(self.conv(x))

    folded = fold_norm


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(
        self,
        in_features: int,
        planes: int,
        *,
        stride: int,
        make_unit: Callable[..., Unit],
    ) -> None:
        self.conv1 = make_unit(in_features, planes, 3, stride=stride)
        self.conv2 = make_unit(planes, planes, 3)
        self.shortcut = _make_shortcut(in_features, planes, stride, make_unit)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map, of half the size where the stride is 2."""
        y = self.conv2(jax.nn.relu(self.conv1(x)))
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions; the second has the stride, the last four times the channels."""

    expansion = 4

    def __init__(
        self,
        in_features: int,
        planes: int,
        *,
        stride: int,
        make_unit: Callable[..., Unit],
    ) -> None:
        out_features = planes * self.expansion
        self.conv1 = make_unit(in_features, planes, 1)
        self.conv2 = make_unit(planes, planes, 3, stride=stride)
        self.conv3 = make_unit(planes, out_features, 1)
        self.shortcut = _make_shortcut(in_features, out_features, stride, make_unit)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        """Returns the map, of half the size where the stride is 2."""
        y = jax.nn.relu(self.conv2(jax.nn.relu(self.conv1(x))))
        return jax.nn.relu(self.conv3(y) + (x if self.shortcut is None else self.shortcut(x)))


def _make_shortcut(
    in_features: int, out_features: int, stride: int, make_unit: Callable[..., Unit]
) -> Unit | None:
    if stride == 1 and in_features == out_features:
        return None
    return make_unit(in_features, out_features, 1, stride=stride)


class ResNet(nnx.Module):
    """Stem and four stages; the map has 1/32 of the image's size, or 1/8 behind the CIFAR stem.

    Kernels start with N(0, sqrt(2 / fan_out)), gains with 1.

    Args:
      layers: number of blocks in each stage.
      bottleneck: Bottleneck blocks in place of Basic ones.
      width: channels of the stem and of the first stage's narrow convolutions.
      cifar_stem: a 3x3 convolution with stride 1, without the max-pool, for images of about 32
        pixels; otherwise 7x7 with stride 2, then the max-pool 3x3 with stride 2.
      frozen_norm: gains, biases and statistics of batch norm stay as they were loaded, for a
        pretrained network under a head that is trained.
      dtype: of the computation; None keeps the images' and parameters' own.

    Attributes:
      num_features: channels of the map.
    """

    def __init__(
        self,
        *,
        layers: Sequence[int] = (3, 4, 6, 3),
        bottleneck: bool = True,
        width: int = 64,
        cifar_stem: bool = False,
        frozen_norm: bool = False,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if len(layers) != 4:
            raise ValueError(f"ResNet has 4 stages; layers needs 4 entries, got {layers}")
        kernel_size, stride = (3, 1) if cifar_stem else (7, 2)
        make_unit = functools.partial(Unit, frozen_norm=frozen_norm, dtype=dtype, rngs=rngs)
        self.stem = make_unit(3, width, kernel_size, stride=stride)
        self.cifar_stem = cifar_stem
        block_type = Bottleneck if bottleneck else BasicBlock
        features = width
        stages = []
        for stage, count in enumerate(layers):
            planes = width * 2**stage
            blocks = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                block = block_type(features, planes, stride=stride, make_unit=make_unit)
                blocks.append(block)
                features = planes * block_type.expansion
            stages.append(Blocks(blocks))
        self.stages = nnx.List(stages)
        self.num_features = features

    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b i j c"]:
        """Returns the feature map of normalized images of any size."""
        x = jax.nn.relu(self.stem(images))
        if not self.cifar_stem:
            padding = ((0, 0), (1, 1), (1, 1), (0, 0))
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
        for blocks in self.stages:
            x = blocks(x)
        return x


resnet18 = functools.partial(ResNet, layers=(2, 2, 2, 2), bottleneck=False)
resnet34 = functools.partial(ResNet, layers=(3, 4, 6, 3), bottleneck=False)
resnet50 = functools.partial(ResNet, layers=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, layers=(3, 4, 23, 3))
