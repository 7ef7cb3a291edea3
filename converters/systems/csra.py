"""CSRA's checkpoints: torchvision's ResNet with heads of class-specific residual attention.

Kevinz-code/CSRA pipeline/resnet_csra.py.
"""

import dataclasses

import numpy as np

from converters.systems import resnet
from converters.systems.shapes import count_blocks, has
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Arrays, Row, Table, Transform, join
from mljax.backbones.resnet import ResNet
from mljax.config import Part, Preprocessing
from mljax.heads.csra import CSRA, TEMPERATURES
from mljax.models.classifier import Classifier

_HEADS = "classifier.multi_head."
# The original's number for the maximum over space.
_MAXIMUM = 99


def matches(tensors: Tensors) -> bool:
    """Returns whether the heads stand beside a ResNet."""
    return has(tensors, _HEADS) and resnet.matches(tensors)


def detect(
    tensors: Tensors, name: str, *, weight: float | None = None, temperatures: tuple | None = None
) -> Detection:
    """Tells the backbone and the number of heads, which has its temperatures."""
    count = count_blocks(tensors, _HEADS)
    kernels = [a for key, a in tensors.items() if key.startswith(_HEADS) and a.ndim == 4]
    if not kernels:
        raise ValueError(f"{name}: CSRA without the weights of its heads; the file is cut")
    if temperatures is None and count not in TEMPERATURES:
        raise ValueError(
            f"{name}: CSRA of {count} heads, which needs temperatures: {count} numbers; known are "
            f"those of {', '.join(map(str, TEMPERATURES))} heads"
        )
    if temperatures is not None and len(temperatures) != count:
        raise ValueError(f"{name}: CSRA of {count} heads, got temperatures {temperatures}")
    chosen = TEMPERATURES[count] if temperatures is None else temperatures
    chosen = tuple(None if t in (None, _MAXIMUM) else float(t) for t in chosen)
    assumed = (0.1 if count == 1 else 0.5) if weight is None else weight
    head = Part(name="csra", kwargs={"temperatures": chosen, "weight": assumed})
    text = f"CSRA head of {count} temperatures"
    found = resnet.detect_with_head(tensors, name, head, kernels[0].shape[0], text)
    return dataclasses.replace(
        found,
        preprocessing=Preprocessing(image_size=448),
        assumption="448 pixels in [0, 1], not normalized, unless given"
        + ("" if weight is not None else f"; the attention's weight {assumed}"),
    )


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    heads = len(model.head.temperatures)
    sources = tuple(f"{_HEADS}{number}.head.weight" for number in range(heads))
    return join(
        resnet.resnet_table(model.backbone, naming),
        Table((Row(sources, ("head.kernel",), _stacked),)),
    )


def _stack(*kernels: np.ndarray) -> Arrays:
    return (np.stack([kernel[:, :, 0, 0].T for kernel in kernels]),)


def _unstack(stacked: np.ndarray) -> Arrays:
    return tuple(kernel.T[:, :, None, None] for kernel in stacked)


# One 1x1 convolution a head there; here an array of all.
_stacked = Transform("stacked_heads", _stack, _unstack)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits."""
    from converters.reference.csra import csra_logits
    from converters.reference.resnet import resnet_features

    features = resnet_features(weights, images)
    head = model.head
    return csra_logits(weights, features, temperatures=head.temperatures, weight=head.weight)


SYSTEM = System(
    name="CSRA",
    networks="ResNet with one or several heads of CSRA",
    matches=matches,
    detect=detect,
    arguments={
        "weight": "of the attended score, lambda: 0.1 for one head, 0.5 for several, unless given",
        "temperatures": "of each head, 99 for the maximum: those of the published heads of "
        "that number unless given",
    },
    pairs=((ResNet, CSRA),),
    namings=("original",),
    table=table,
    logits=logits,
)
