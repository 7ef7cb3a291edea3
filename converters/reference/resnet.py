"""ResNet in plain torch over a state dict, written from the published facts, not from mljax.

It reads the names of torchvision (which are timm's) and of SupContrast. Importing this module needs
torch.

He et al., https://arxiv.org/abs/1512.03385.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def resnet_features(weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Returns the feature map `[b, c, h, w]` in eval mode; a 3x3 stem is the CIFAR one.

    Args:
      weights: the state dict.
      images: `[b, 3, h, w]`, normalized.
    """
    outer = "encoder." if "encoder.conv1.weight" in weights else ""
    cifar = weights[f"{outer}conv1.weight"].shape[-1] == 3
    x = F.relu(_unit(weights, f"{outer}conv1", f"{outer}bn1", images, 1 if cifar else 2))
    if not cifar:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        index = 0
        while f"{outer}layer{stage}.{index}.conv1.weight" in weights:
            stride = 2 if stage > 1 and index == 0 else 1
            x = _block(weights, f"{outer}layer{stage}.{index}", x, stride)
            index += 1
    return x


def _unit(weights: Mapping[str, Tensor], conv: str, norm: str, x: Tensor, stride: int) -> Tensor:
    kernel = weights[f"{conv}.weight"]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
    return F.batch_norm(x, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-5)


def _block(weights: Mapping[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    last = 3 if f"{name}.conv3.weight" in weights else 2
    y = x
    for number in range(1, last + 1):
        # The first of two, the second of three convolutions has the stride.
        step = stride if number == last - 1 else 1
        y = _unit(weights, f"{name}.conv{number}", f"{name}.bn{number}", y, step)
        y = F.relu(y) if number < last else y
    for shortcut in (f"{name}.downsample", f"{name}.shortcut"):
        if f"{shortcut}.0.weight" in weights:
            x = _unit(weights, f"{shortcut}.0", f"{shortcut}.1", x, stride)
    return F.relu(y + x)
