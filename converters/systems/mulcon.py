"""MulCon's separate networks, joined: encoder, label attention, classifiers, projection.

SonDaoDuy/MulCon models/networks.py; its folder of checkpoints holds a file for each network,
`epoch_15_net_E.pth`, `..._net_A.pth`, `..._net_C_0.pth` to the last class and in stage two
`..._net_P.pth`, and the averaged ones with `ema_` before them. Their names are joined here as
`netE.`, `netA.`, `netC.0.` and `netP.`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.rows import affine, norm
from converters.systems import resnet
from converters.systems.shapes import count_blocks, has
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Arrays, Row, Table, Transform, first, join, row
from mljax.backbones.resnet import ResNet
from mljax.config import Part, Preprocessing
from mljax.heads.label_attention import AttentionBlock, LabelAttention
from mljax.models.classifier import Classifier

_ENCODER = "netE."
# The encoder is a Sequential of torchvision's ResNet, whose layers are numbers.
_LAYERS = {"conv1": "0", "bn1": "1"} | {f"layer{n}": str(n + 3) for n in (1, 2, 3, 4)}
_BLOCKS = {"mab": "read", "sab1.mab": "places1", "sab2.mab": "places2", "sab3.mab": "labels"}


def matches(tensors: Tensors) -> bool:
    """Returns whether encoder and label attention are there."""
    return has(tensors, _ENCODER) and has(tensors, "netA.")


def detect(tensors: Tensors, name: str, *, num_heads: int | None = None) -> Detection:
    """Tells the encoder, the width of the embeddings and of the projection."""
    kernel = tensors.get("netA.mab.fc_q.weight")
    count = count_blocks(tensors, "netC.")
    if kernel is None or not count:
        raise ValueError(
            f"{name}: MulCon without netA.mab.fc_q.weight or the classifiers netC; a file is "
            "missing or cut"
        )
    projection = tensors.get("netP.2.bias")
    told = {
        "embedding_size": len(kernel) if len(kernel) != 1024 else None,
        "num_heads": num_heads,
        "norms": None if has(tensors, "netA.mab.ln0.") else False,
        "projection_size": None if projection is None else len(projection),
    }
    kwargs = {key: value for key, value in told.items() if value is not None}
    text = "label attention" + (
        "" if projection is None else f" with a projection to {len(projection)}"
    )
    head = Part(name="label_attention", kwargs=kwargs)
    found = resnet.detect_with_head(_encoder(tensors), name, head, count, text)
    return dataclasses.replace(
        found,
        preprocessing=Preprocessing(
            image_size=448, mean=found.preprocessing.mean, std=found.preprocessing.std
        ),
        assumption="448 pixels, mean and std of ImageNet, 4 attention heads, unless given",
    )


def _encoder(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the encoder's tensors by torchvision's names."""
    names = {number: layer for layer, number in _LAYERS.items()}
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(_ENCODER):
            number, _, rest = name.removeprefix(_ENCODER).partition(".")
            found[f"{names.get(number, number)}.{rest}"] = tensor
    return found


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    del naming  # There is one.
    body = resnet.resnet_table(model.backbone, "original")
    rows = tuple(
        Row(tuple(map(_numbered, entry.sources)), entry.targets, entry.transform)
        for entry in body.rows
    )
    unused = {_numbered(name): reason for name, reason in body.unused.items()}
    return join(Table(rows, unused), label_attention_table(model.head))


def _numbered(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"{_ENCODER}{_LAYERS[layer]}.{rest}"


def label_attention_table(head: LabelAttention) -> Table:
    """Returns the table of the head, whose path in the network is `head`; it may be abstract."""
    labels = range(head.kernel.shape[0])
    tables = [
        Table((row("netA.I", "head.queries", first),)),
        *(
            block_table(getattr(head, ours), f"netA.{theirs}", ours)
            for theirs, ours in _BLOCKS.items()
        ),
        Table(
            (
                Row(tuple(f"netC.{n}.weight" for n in labels), ("head.kernel",), _stacked),
                Row(tuple(f"netC.{n}.bias" for n in labels), ("head.bias",), _stacked),
            )
        ),
    ]
    if head.projection is not None:
        tables.append(affine("netP.0", "head.projection.hidden"))
        tables.append(affine("netP.2", "head.projection.output"))
    return join(*tables)


def block_table(block: AttentionBlock, source: str, target: str) -> Table:
    """Returns the table of a block of the head, which may be abstract."""
    layers = (("fc_q", "query"), ("fc_k", "key"), ("fc_v", "value"), ("fc_o", "out"))
    tables = [affine(f"{source}.{old}", f"head.{target}.{new}") for old, new in layers]
    if block.norm1 is not None:
        tables += [norm(f"{source}.ln{n}", f"head.{target}.norm{n + 1}") for n in (0, 1)]
    return join(*tables)


def _stack(*rows: np.ndarray) -> Arrays:
    return (np.concatenate(rows),)


def _unstack(stacked: np.ndarray) -> Arrays:
    return tuple(stacked[n : n + 1] for n in range(len(stacked)))


# One network a class there; here one array of all.
_stacked = Transform("stacked_classifiers", _stack, _unstack)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits."""
    from converters.reference.mulcon import mulcon_logits
    from converters.reference.resnet import resnet_features

    features = resnet_features(_encoder(weights), images)
    return mulcon_logits(weights, features, num_heads=model.head.read.num_heads)


SYSTEM = System(
    name="MulCon",
    networks="ResNet with the label attention of MulCon, of a folder of its networks",
    matches=matches,
    detect=detect,
    arguments={"num_heads": "of every attention block: 4 unless given"},
    pairs=((ResNet, LabelAttention),),
    namings=("original",),
    table=table,
    logits=logits,
)
