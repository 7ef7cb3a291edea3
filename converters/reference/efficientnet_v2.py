"""EfficientNetV2 in plain torch over a state dict, from the published facts, not from mljax.

It reads timm's names. Importing this module needs torch.

Tan and Le, https://arxiv.org/abs/2104.00298, table 4; strides as in timm's `efficientnet.py`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

_STRIDES = (1, 2, 2, 2, 1, 2, 1)


def efficientnet_v2_features(
    weights: Mapping[str, Tensor],
    images: Tensor,
    *,
    same_padding: bool,
    norm_eps: float,
    source: str = "",
    training: bool = False,
) -> Tensor:
    """Returns the feature map `[b, c, h, w]` behind the last 1x1 convolution.

    Args:
      weights: the state dict.
      images: `[b, 3, h, w]`, normalized.
      same_padding: TensorFlow's padding; torch's otherwise.
      norm_eps: of batch norm.
      source: what precedes the names, such as `backbone.model.`.
      training: normalize by the batch, and move the running statistics.
    """

    def convolve(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        groups = x.shape[1] // kernel.shape[1]
        size = kernel.shape[-1]
        if not same_padding:
            return F.conv2d(x, kernel, stride=stride, padding=size // 2, groups=groups)
        height, width = (
            max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[2:]
        )
        pads = (width // 2, width - width // 2, height // 2, height - height // 2)
        return F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)

    def normalize(name: str, x: Tensor) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        gain, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.batch_norm(x, mean, var, gain, bias, training=training, eps=norm_eps)

    def attend(name: str, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        for layer, activation in (("conv_reduce", F.silu), ("conv_expand", torch.sigmoid)):
            inner = f"{name}.{layer}"
            pooled = activation(
                F.conv2d(pooled, weights[f"{inner}.weight"], weights[f"{inner}.bias"])
            )
        return x * pooled

    def block(name: str, x: Tensor, stride: int) -> Tensor:
        if f"{name}.conv.weight" in weights:
            y = F.silu(normalize(f"{name}.bn1", convolve(f"{name}.conv", x, stride)))
        elif f"{name}.conv_exp.weight" in weights:
            y = F.silu(normalize(f"{name}.bn1", convolve(f"{name}.conv_exp", x, stride)))
            y = normalize(f"{name}.bn2", convolve(f"{name}.conv_pwl", y))
        else:
            y = F.silu(normalize(f"{name}.bn1", convolve(f"{name}.conv_pw", x)))
            y = F.silu(normalize(f"{name}.bn2", convolve(f"{name}.conv_dw", y, stride)))
            y = normalize(f"{name}.bn3", convolve(f"{name}.conv_pwl", attend(f"{name}.se", y)))
        return x + y if stride == 1 and x.shape == y.shape else y

    x = F.silu(normalize(f"{source}bn1", convolve(f"{source}conv_stem", images, 2)))
    for stage, stride in enumerate(_STRIDES):
        index = 0
        while any(n.startswith(f"{source}blocks.{stage}.{index}.") for n in weights):
            x = block(f"{source}blocks.{stage}.{index}", x, stride if index == 0 else 1)
            index += 1
    return F.silu(normalize(f"{source}bn2", convolve(f"{source}conv_head", x)))
