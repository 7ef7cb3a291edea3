"""ML-GCN's checkpoints: torchvision's ResNet by numbers under `features.`, and its graph.

megvii-research/ML-GCN models.py, `GCNResnet`.
"""

import dataclasses

import numpy as np

from converters.systems import resnet
from converters.systems.aam import detect_graph, graph_table
from converters.systems.shapes import has
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Table, join, renamed
from mljax.backbones.resnet import ResNet
from mljax.config import Part
from mljax.heads.ml_gcn import MLGCN
from mljax.models.classifier import Classifier

# Places in the original's sequence of layers; those between have no weights.
_LAYERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_NUMBERS = {number: layer for layer, number in _LAYERS.items()}
_WORDS = "the word vectors are an input of the original"


def matches(tensors: Tensors) -> bool:
    """Returns whether a numbered ResNet stands beside a graph."""
    return has(tensors, "features.4.0.") and has(tensors, "gc1.", "gc2.")


def detect(tensors: Tensors, name: str, *, word_vectors: np.ndarray | None = None) -> Detection:
    """Tells the ResNet and the widths of the graph."""
    if word_vectors is None or np.ndim(word_vectors) != 2:
        shape = None if word_vectors is None else np.shape(word_vectors)
        raise ValueError(
            f"{name}: is an ML-GCN, which needs word_vectors [classes, 300], got {shape}; they "
            "come with the data set, not with the weights"
        )
    words = np.asarray(word_vectors)
    graph, count = detect_graph(tensors, words, name)
    if len(words) != count:
        raise ValueError(f"{name}: got {len(words)} word vectors for {count} classes")
    first, second = tensors.get("gc1.weight"), tensors.get("gc2.weight")
    if first is None or second is None:
        raise ValueError(f"{name}: an ML-GCN without gc1.weight or gc2.weight; the file is cut")
    kwargs = {"graph": graph}
    if 2 * first.shape[1] != second.shape[1]:
        kwargs["hidden_features"] = first.shape[1]
    body = {_named(n): t for n, t in tensors.items() if n.startswith("features.")}
    head = Part(name="ml_gcn", kwargs=kwargs)
    found = resnet.detect_with_head(body, name, head, count, "ML-GCN head")
    return dataclasses.replace(
        found,
        preprocessing=dataclasses.replace(found.preprocessing, image_size=448),
        assumption="448 pixels, mean and std of ImageNet, unless given",
        arrays={"head.graph.nodes": words},
    )


def _named(name: str) -> str:
    """Returns torchvision's name of a layer under `features.`."""
    number, dot, rest = name.removeprefix("features.").partition(".")
    return _NUMBERS.get(number, number) + dot + rest


def _numbered(name: str) -> str:
    layer, dot, rest = name.partition(".")
    return f"features.{_LAYERS[layer]}{dot}{rest}"


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    body = renamed(resnet.resnet_table(model.backbone, naming), _numbered)
    words = Table((), kept={"head.graph.nodes": _WORDS})
    return join(graph_table(model.head.graph), body, words)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits; the word vectors are the model's."""
    from converters.reference.label_graph import node_outputs
    from converters.reference.resnet import resnet_features

    body = {_named(n): t for n, t in weights.items() if n.startswith("features.")}
    features = resnet_features(body, images)
    nodes = features.new_tensor(np.asarray(model.head.graph.nodes[...]))
    return features.amax((2, 3)) @ node_outputs(weights, nodes).T


SYSTEM = System(
    name="ML-GCN",
    networks="ResNet with the graph of ML-GCN",
    matches=matches,
    detect=detect,
    arguments={"word_vectors": "of the classes, [k, w]: a .npy file; in the original's pickle"},
    pairs=((ResNet, MLGCN),),
    table=table,
    logits=logits,
)
