"""SupContrast's ResNet, whose backbone stands under `encoder.`.

HobbitLong/SupContrast `networks/resnet_big.py`: `SupCEResNet` has a linear classifier,
`SupConResNet` a projection head.
"""

from converters.systems.resnet import detect_with_head, logits, table
from converters.systems.shapes import count_outputs, has
from converters.systems.system import Detection, System, Tensors
from mljax.backbones.resnet import ResNet
from mljax.config import Part
from mljax.heads.linear import Linear

ENCODER = "encoder."


def matches(tensors: Tensors) -> bool:
    """Returns whether a ResNet's stages stand under `encoder.`."""
    return has(tensors, f"{ENCODER}layer1.")


def detect(tensors: Tensors, name: str) -> Detection:
    """Tells the variant, its stem, and whether it classifies or projects."""
    if has(tensors, "head."):
        head, num_classes, text = Part(name="projection"), 0, "projection head"
    else:
        num_classes = count_outputs(tensors, "fc", name)
        head, text = Part(name="linear"), "linear head"
    return detect_with_head(tensors, name, head, num_classes, text, prefix=ENCODER)


SYSTEM = System(
    name="SupContrast",
    networks="ResNet with a linear head of SupContrast",
    matches=matches,
    detect=detect,
    pairs=((ResNet, Linear),),
    namings=("supcon",),
    table=table,
    logits=logits,
)
