"""Networks from images `[b, h, w, 3]` to one feature map `[b, i, j, c]`; they know no labels."""

from collections.abc import Callable

from flax import nnx

from mljax.backbones.efficientnet_v2 import (
    efficientnet_v2_b0,
    efficientnet_v2_l,
    efficientnet_v2_m,
    efficientnet_v2_s,
)
from mljax.backbones.resnet import resnet18, resnet34, resnet50, resnet101
from mljax.backbones.tresnet import tresnet_l, tresnet_l_v2, tresnet_m, tresnet_xl
from mljax.config.part import table

BACKBONES: dict[str, Callable[..., nnx.Module]] = table(
    "backbone",
    {
        "tresnet_m": tresnet_m,
        "tresnet_l": tresnet_l,
        "tresnet_xl": tresnet_xl,
        "tresnet_l_v2": tresnet_l_v2,
        "efficientnet_v2_b0": efficientnet_v2_b0,
        "efficientnet_v2_s": efficientnet_v2_s,
        "efficientnet_v2_m": efficientnet_v2_m,
        "efficientnet_v2_l": efficientnet_v2_l,
        "resnet18": resnet18,
        "resnet34": resnet34,
        "resnet50": resnet50,
        "resnet101": resnet101,
    },
)
