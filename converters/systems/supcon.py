"""SupContrast's ResNet, whose backbone stands under `encoder.`.

HobbitLong/SupContrast `networks/resnet_big.py`: `SupCEResNet` has a linear classifier,
`SupConResNet` a projection head.
"""

from converters.rows import affine
from converters.systems import resnet
from converters.systems.resnet import detect_with_head, resnet_table
from converters.systems.shapes import count_outputs, has, without
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.systems.tresnet import NO_CLASSIFIER
from converters.table import Table, join
from mljax.backbones.resnet import ResNet
from mljax.config import Part
from mljax.heads.linear import Linear
from mljax.heads.pooled import Pooled
from mljax.heads.projection import Projection
from mljax.models.classifier import Classifier

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
        head, num_classes, text = _detect_projection(tensors, name), 0, "projection head"
    elif not has(tensors, "fc."):
        head, num_classes, text = Part(name="pooled"), 0, NO_CLASSIFIER
    else:
        num_classes = count_outputs(tensors, "fc", name)
        head, text = Part(name="linear"), "linear head"
    return detect_with_head(tensors, name, head, num_classes, text, prefix=ENCODER)


def _detect_projection(tensors: Tensors, name: str) -> Part:
    hidden = has(tensors, "head.0.") or has(tensors, "head.2.")
    size = count_outputs(tensors, "head.2" if hidden else "head", name)
    return Part(name="projection", kwargs={"size": size, "hidden": hidden})


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    head = model.head
    if not isinstance(head, Projection):
        return resnet.table(model, naming)
    layers = affine("head", "head.output")
    if head.hidden is not None:
        layers = join(affine("head.0", "head.hidden"), affine("head.2", "head.output"))
    return join(resnet_table(model.backbone, naming), layers)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits, or projections."""
    from converters.reference.linear import projections
    from converters.reference.resnet import resnet_features

    if has(weights, "head."):
        return projections(weights, resnet_features(weights, images), "head")
    return resnet.logits(weights, images, model)


SYSTEM = System(
    name="SupContrast",
    networks="ResNet with a linear or projection head of SupContrast",
    matches=matches,
    detect=detect,
    validation="not at all: its images have 32 pixels",
    pairs=((ResNet, Linear), (ResNet, Pooled), (ResNet, Projection)),
    namings=("supcon",),
    table=table,
    logits=logits,
)
