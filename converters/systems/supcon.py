"""SupContrast's ResNet, whose backbone stands under `encoder.`.

HobbitLong/SupContrast `networks/resnet_big.py`: `SupCEResNet` has a linear classifier,
`SupConResNet` a projection head.
"""

from converters.systems.resnet import detect_with_head, logits, table
from converters.systems.shapes import count_outputs, has, without
from converters.systems.system import Detection, System, Tensors
from converters.systems.tresnet import NO_CLASSIFIER
from mljax.backbones.resnet import ResNet
from mljax.config import Part
from mljax.heads.linear import Linear
from mljax.heads.pooled import Pooled

ENCODER = "encoder."


def matches(tensors: Tensors) -> bool:
    """Returns whether a ResNet's stages stand under `encoder.`, by SupContrast's names.

    Others call their ResNet so too, with a classifier or with torchvision's name of the shortcuts.
    """
    body = without(ENCODER, tensors)
    if not has(body, "layer1.") or has(body, "fc."):
        return False
    return not any(".downsample." in name for name in body)


def detect(tensors: Tensors, name: str) -> Detection:
    """Tells the variant, its stem, and whether it classifies or projects."""
    if has(tensors, "head."):
        head, num_classes, text = Part(name="projection"), 0, "projection head"
    elif not has(tensors, "fc."):
        head, num_classes, text = Part(name="pooled"), 0, NO_CLASSIFIER
    else:
        num_classes = count_outputs(tensors, "fc", name)
        head, text = Part(name="linear"), "linear head"
    return detect_with_head(tensors, name, head, num_classes, text, prefix=ENCODER)


SYSTEM = System(
    name="SupContrast",
    networks="ResNet with a linear head of SupContrast",
    matches=matches,
    detect=detect,
    validation="not at all: its images have 32 pixels",
    pairs=((ResNet, Linear), (ResNet, Pooled)),
    namings=("supcon",),
    table=table,
    logits=logits,
)
