"""TResNet in plain torch over a state dict, written from the published facts, not from mljax.

It answers whether a conversion computes what the torch file computes, and gives benchmarks a torch
side. It reads the original names and timm's. Importing this module needs torch.

Ridnik et al., https://arxiv.org/abs/2003.13630; mapillary/inplace_abn for the batch norm.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from converters.reference.linear import linear_logits

_EPS = 1e-5


def tresnet_logits(
    weights: Mapping[str, Tensor],
    images: Tensor,
    *,
    stem_slope: float = 1e-2,
    block_slope: float = 1e-3,
    training: bool = False,
) -> Tensor:
    """Returns the logits `[b, k]` of a TResNet with a linear or bottleneck head.

    The arguments are those of `tresnet_features`.
    """
    features = tresnet_features(
        weights, images, stem_slope=stem_slope, block_slope=block_slope, training=training
    )
    return linear_logits(weights, features, "head.fc")


def tresnet_features(
    weights: Mapping[str, Tensor],
    images: Tensor,
    *,
    stem_slope: float = 1e-2,
    block_slope: float = 1e-3,
    training: bool = False,
) -> Tensor:
    """Returns the feature map `[b, c, h, w]`.

    Args:
      weights: the state dict.
      images: `[b, 3, h, w]` in [0, 1], sides multiples of 4.
      stem_slope: of the stem's leaky rectifier.
      block_slope: of those within blocks.
      training: normalize by the batch's statistics and move the running ones.
    """
    x = _unit(weights, "body.conv1", _space_to_depth(images), stem_slope, training)
    for stage in (1, 2, 3, 4):
        index = 0
        while _has(weights, f"body.layer{stage}.{index}."):
            stride = 2 if stage > 1 and index == 0 else 1
            x = _block(weights, f"body.layer{stage}.{index}", x, stride, block_slope, training)
            index += 1
    return x


def _has(weights: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in weights)


def _space_to_depth(x: Tensor, block: int = 4) -> Tensor:
    b, c, h, w = x.shape
    x = x.view(b, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, block * block * c, h // block, w // block)


def _unit(
    weights: Mapping[str, Tensor], name: str, x: Tensor, slope: float, training: bool
) -> Tensor:
    """Convolution, then in-place activated batch norm; slope 1 is the identity."""
    if f"{name}.conv.weight" in weights:
        conv, norm = f"{name}.conv", f"{name}.bn"
        gain = weights[f"{norm}.weight"]
    else:
        inner = f"{name}.0" if f"{name}.0.0.weight" in weights else name
        conv, norm = f"{inner}.0", f"{inner}.1"
        gain = weights[f"{norm}.weight"].abs() + _EPS
    kernel = weights[f"{conv}.weight"]
    x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
    x = F.batch_norm(x, mean, var, gain, weights[f"{norm}.bias"], training, eps=_EPS)
    return F.leaky_relu(x, slope)


def _blur(x: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device)
    kernel = (taps[:, None] * taps[None, :] / 16).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def _block(
    weights: Mapping[str, Tensor],
    name: str,
    x: Tensor,
    stride: int,
    slope: float,
    training: bool,
) -> Tensor:
    bottleneck = _has(weights, f"{name}.conv3.")
    y = _unit(weights, f"{name}.conv1", x, slope, training)
    if bottleneck:
        y = _unit(weights, f"{name}.conv2", y, slope, training)
    y = _blur(y) if stride == 2 else y
    if bottleneck:
        y = _unit(weights, f"{name}.conv3", _squeeze_excite(weights, name, y), 1.0, training)
    else:
        y = _squeeze_excite(weights, name, _unit(weights, f"{name}.conv2", y, 1.0, training))
    if _has(weights, f"{name}.downsample."):
        if stride == 2:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        x = _unit(weights, f"{name}.downsample.{stride - 1}", x, 1.0, training)
    return F.relu(y + x)


def _squeeze_excite(weights: Mapping[str, Tensor], block: str, x: Tensor) -> Tensor:
    name = f"{block}.se"
    if f"{name}.fc1.weight" not in weights:
        return x
    y = x.mean((2, 3), keepdim=True)
    y = F.relu(F.conv2d(y, weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"]))
    y = F.conv2d(y, weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"])
    return x * y.sigmoid()
