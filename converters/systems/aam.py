"""AAM's checkpoints: EfficientNetV2, TResNet or ResNet with a cosine head, ML-Decoder or graph.

tosfaq/deep-object-reid (branches multilabel-paper and multilabel): timm's network under `model.`
in a plain one, under `backbone.model.` beside `decoder.` (`mld_` in its name) or beside `gc1.` and
`gc2.` (`gcn_`); its own TResNet-L under `backbone.`. What follows is told by exact name, else by
the name without `backbone.`, as the branch multilabel reads it.
"""

import dataclasses
from typing import Any

import numpy as np

from converters.rows import affine
from converters.systems import efficientnet_v2, resnet, tresnet
from converters.systems.ml_decoder import ml_decoder_table
from converters.systems.shapes import has, without
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Arrays, Row, Table, Transform, copy, join, renamed, row
from mljax.backbones.efficientnet_v2 import EfficientNetV2
from mljax.backbones.resnet import ResNet
from mljax.backbones.tresnet import TResNet
from mljax.config import Part
from mljax.heads.cosine import Cosine
from mljax.heads.graph_reweighting import GraphReweighting
from mljax.heads.label_graph import LabelGraph
from mljax.heads.linear import Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.layers.graph import GraphAttention
from mljax.models.classifier import Classifier

NAMING, BARE = "deep_object_reid", "deep_object_reid/bare"
_ACTIVATION = "an activation that timm from 0.6 on never calls"
_CLASSIFIER = "the backbone's own classifier, which the head stands for; exported as zeros"


def matches(tensors: Tensors) -> bool:
    """Returns whether a backbone stands beside a decoder or a graph, or has a cosine head."""
    known = (efficientnet_v2, tresnet, resnet)
    if not any(kind.matches(without(_prefix(tensors), tensors)) for kind in known):
        return False
    return has(tensors, "decoder.", "gc1.", "gc2.") or has(tensors, "model.act2.")


def _prefix(tensors: Tensors) -> str:
    """Returns what precedes the names of the backbone."""
    found = ("backbone.model.", "backbone.body.", "model.")
    prefix = next((start for start in found if has(tensors, start)), "")
    return prefix.removesuffix("body.")


def detect(
    tensors: Tensors,
    name: str,
    *,
    cosine: bool | None = None,
    scale: float | None = None,
    pooling: str | None = None,
    stem_slope: float | None = None,
    block_slope: float | None = None,
    same_padding: bool | None = None,
    norm_eps: float | None = None,
) -> Detection:
    """Tells the backbone and the head."""
    prefix = _prefix(tensors)
    body = without(prefix, tensors)
    told = "act2.weight" in body if efficientnet_v2.matches(body) else True
    kwargs: dict[str, Any] = {}
    if "head.weight" in tensors or "head.bias" in tensors:
        told = "head.bias" not in tensors
    cosine = told if cosine is None else cosine
    if cosine:
        kwargs["scale"] = 30.0 if scale is None else scale
    elif scale is not None:
        raise ValueError(f"{name}: scale is of cosines, which this network does not compute")
    pooled = {} if pooling is None else {"pooling": Part(name=pooling)}
    if has(tensors, "decoder."):
        if pooled:
            raise ValueError(f"{name}: an ML-Decoder takes no pooling")
        head, count, text = _detect_decoder(tensors, kwargs, name)
    elif has(tensors, "gc1.", "gc2."):
        inner = Part(name="cosine" if cosine else "linear", kwargs=kwargs | pooled)
        head, count, text = _detect_graph(tensors, inner, name)
    else:
        classifier = body.get("classifier.weight")
        if classifier is None:
            raise ValueError(f"{name}: a network without its classifier; the file is cut")
        head, count = Part(name="cosine", kwargs=kwargs | pooled), classifier.shape[1]
        text = "cosine head"
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    variant = {"same_padding": same_padding, "norm_eps": norm_eps}
    foreign = slopes | variant
    if efficientnet_v2.matches(body):
        found = efficientnet_v2.detect_with_head(body, name, variant, head, count, text)
        foreign = slopes
    elif tresnet.matches(body):
        found, foreign = tresnet.detect_with_head(body, name, slopes, head, count, text), variant
    else:
        found = resnet.detect_with_head(body, name, head, count, text)
    if given := [key for key, value in foreign.items() if value is not None]:
        raise ValueError(f"{name}: a {found.description} takes no argument {' or '.join(given)}")
    half = (0.5, 0.5, 0.5)
    assumed = f"scale {kwargs['scale']:g}, " if cosine and scale is None else ""
    return dataclasses.replace(
        found,
        naming=NAMING if prefix.startswith("backbone.") or head.name == "cosine" else BARE,
        preprocessing=dataclasses.replace(found.preprocessing, image_size=448, mean=half, std=half),
        assumption=f"{assumed}448 pixels, mean and std 0.5, unless given; {found.assumption}",
    )


def _detect_decoder(tensors: Tensors, kwargs: dict[str, Any], name: str) -> tuple[Part, int, str]:
    pool = tensors.get("decoder.duplicate_pooling")
    bias = tensors.get("decoder.duplicate_pooling_bias")
    if pool is None or bias is None:
        raise ValueError(f"{name}: an ML-Decoder head without its group pooling; the file is cut")
    kwargs = {"num_groups": pool.shape[0], "embedding_size": pool.shape[1], **kwargs}
    hidden = tensors.get("decoder.layers.0.linear1.weight")
    if hidden is not None and hidden.shape[0] != 2048:
        kwargs["feed_forward_size"] = hidden.shape[0]
    text = f"ML-Decoder head ({pool.shape[0]} groups of width {pool.shape[1]})"
    return Part(name="ml_decoder", kwargs=kwargs), bias.shape[0], text


def _detect_graph(tensors: Tensors, inner: Part, name: str) -> tuple[Part, int, str]:
    graph, count = detect_graph(tensors, tensors.get("inp"), name)
    layers = [tensors.get(f"gc2.{kind}") for kind in ("weight", "W")]
    second = next((layer for layer in layers if layer is not None), None)
    kwargs: dict[str, Any] = {"graph": graph, "head": inner}
    if second is not None and second.shape[0] != second.shape[1]:
        kwargs["hidden_features"] = second.shape[0]
    text = f"{graph.kwargs['layer'].name} re-weighting, {inner.name} head"
    return Part(name="graph_reweighting", kwargs=kwargs), count, text


def detect_graph(tensors: Tensors, words: np.ndarray | None, name: str) -> tuple[Part, int]:
    """Returns the graph over the classes, and their number.

    Args:
      tensors: a state dict with `A`, `gc1` and `gc2`.
      words: `[k, w]`.
      name: of the source, for messages.
    """
    edges = tensors.get("A")
    if edges is None or words is None:
        raise ValueError(f"{name}: a graph without its adjacency A or its word vectors")
    attention = has(tensors, "gc1.W", "gc1.a", "gc2.W", "gc2.a")
    layer = Part(name="graph_attention" if attention else "graph_convolution")
    kwargs = {"layer": layer, "word_vector_size": words.shape[1]}
    return Part(name="label_graph", kwargs=kwargs), edges.shape[0]


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    head, outer = model.head, "" if naming == BARE else "backbone."
    if isinstance(head, Cosine):
        classifier = row("model.classifier.weight", "head.cosine.kernel", copy)
        return join(_backbone(model, "model."), Table((classifier,)), _activation("model.", True))
    inner = "" if isinstance(model.backbone, TResNet) else "model."
    body = _backbone(model, outer + inner)
    if isinstance(head, MLDecoder):
        # Its names are of the root here, not of a `head`.
        decoder = renamed(ml_decoder_table(head, "original"), lambda n: n.removeprefix("head."))
        cosine, classifier = head.scale is not None, Table(())
        if isinstance(model.backbone, TResNet):
            classifier = unread_classifier(f"{outer}head.fc", head.num_classes, model, False)
        fillers = join(classifier, _activation(outer + inner, cosine and inner != ""))
        return join(body, fillers, decoder)
    cosine = isinstance(head.head, Cosine)
    if not cosine and not isinstance(head.head, Linear):
        raise ValueError(
            f"deep_object_reid has a cosine or linear head behind a graph, got {type(head.head)}"
        )
    count = len(head.graph.edges)
    place = f"{outer}head.fc" if inner == "" else f"{outer}model.classifier"
    if isinstance(model.backbone, ResNet):
        place = f"{outer}model.fc"
    after = row("head.weight", "head.head.cosine.kernel", copy)
    return join(
        Table((row("inp", "head.graph.nodes", copy),)),
        graph_table(head.graph),
        body,
        unread_classifier(place, count, model, cosine and inner != ""),
        _activation(outer + inner, cosine and isinstance(model.backbone, EfficientNetV2)),
        Table((after,)) if cosine else affine("head", "head.head.linear"),
    )


def _backbone(model: Classifier, source: str) -> Table:
    if isinstance(model.backbone, EfficientNetV2):
        return efficientnet_v2.efficientnet_v2_table(model.backbone, source=source)
    if isinstance(model.backbone, TResNet):
        return tresnet.tresnet_table(model.backbone, "original", source=source)
    return renamed(resnet.resnet_table(model.backbone, "timm"), lambda name: source + name)


def graph_table(graph: LabelGraph, *, target: str = "head.graph") -> Table:
    """Returns the table of the adjacency and the two layers of a graph.

    Args:
      graph: tells the kind of layers; it may be abstract.
      target: path of the graph in the network.
    """
    rows = [row("A", f"{target}.edges", copy)]
    for number, layer in ((1, graph.layer1), (2, graph.layer2)):
        source, path = f"gc{number}", f"{target}.layer{number}"
        if isinstance(layer, GraphAttention):
            rows.append(row(f"{source}.W", f"{path}.kernel", copy))
            rows.append(row(f"{source}.a", f"{path}.scores", halves))
        else:
            rows.append(row(f"{source}.weight", f"{path}.kernel", copy))
    return Table(tuple(rows))


# Scores of the reading and of the read class, one above the other in a column.
halves = Transform("halves", lambda a: (a.reshape(2, -1),), lambda s: (s.reshape(-1, 1),))


def _activation(prefix: str, present: bool) -> Table:
    name = f"{prefix}act2.weight"
    return _fillers({name: np.full(1, 0.25, np.float32)}, _ACTIVATION) if present else Table(())


def unread_classifier(source: str, count: int, model: Classifier, cosine: bool) -> Table:
    """Returns the table of the backbone's own classifier, behind which another head stands.

    Args:
      source: what precedes `.weight`.
      count: number of classes.
      model: tells the width.
      cosine: whether the weight has the features first, and no bias beside it.
    """
    width = model.backbone.num_features
    fillers: dict[str, np.ndarray] = {
        f"{source}.weight": np.zeros((width, count) if cosine else (count, width), "f4")
    }
    if not cosine:
        fillers[f"{source}.bias"] = np.zeros(count, np.float32)
    return _fillers(fillers, _CLASSIFIER)


def _fillers(arrays: dict[str, np.ndarray], reason: str) -> Table:
    def constant(array: np.ndarray) -> Transform:
        def to_torch() -> Arrays:
            return (array,)

        return Transform("constant", lambda _: (), to_torch)

    rows = tuple(Row((name,), (), constant(array)) for name, array in arrays.items())
    return Table(rows, unused=dict.fromkeys(arrays, reason))


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits; of the model, what the weights do not tell."""
    from converters.reference.label_graph import POOLINGS, cosine_logits, reweighted
    from converters.reference.linear import linear_logits
    from converters.reference.ml_decoder import ml_decoder_logits
    from converters.reference.resnet import resnet_features

    prefix = next(p for p in ("backbone.model.", "backbone.", "model.", "") if has(weights, p))
    body = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    if isinstance(model.backbone, EfficientNetV2):
        features = efficientnet_v2.reference_features(body, images, model.backbone)
    elif isinstance(model.backbone, TResNet):
        features = tresnet.reference_features(body, images, model.backbone)
    else:
        features = resnet_features(body, images)
    head: Any = model.head
    if isinstance(head, MLDecoder):
        named = {f"head.{n}": t for n, t in weights.items() if n.startswith("decoder.")}
        heads = head.layer.attention.num_heads
        return ml_decoder_logits(named, features, "head", num_heads=heads, scale=head.scale)
    classifier = body.get("classifier.weight")
    if isinstance(head, GraphReweighting):
        features, head = reweighted(weights, features), head.head
        classifier = weights["head.weight"]
    pooled = POOLINGS[head.pooling.name](features)
    if isinstance(head, Cosine):
        assert classifier is not None
        return cosine_logits(pooled, classifier, head.scale)
    return linear_logits(weights, pooled[:, :, None, None], "head")


SYSTEM = System(
    name="AAM",
    networks="EfficientNetV2, TResNet or ResNet with a head of deep-object-reid: cosine, "
    "ML-Decoder or graph re-weighting",
    matches=matches,
    detect=detect,
    arguments={
        "cosine": "whether logits are cosines (am_binary); told by the file but for an ML-Decoder "
        "on a TResNet or ResNet, where it is true unless given",
        "scale": "of the cosines, loss.softmax.s in the config: 30 unless given; the paper has 17 "
        "for VOC, 23 for COCO and NUS-WIDE, 25 for VG500",
        "pooling": "model.pooling_type: average unless given, or max or average_plus_max",
        **tresnet.SLOPES,
        **efficientnet_v2.VARIANT,
    },
    pairs=(
        (EfficientNetV2, Cosine),
        *((b, h) for b in (EfficientNetV2, TResNet, ResNet) for h in (MLDecoder, GraphReweighting)),
    ),
    namings=(NAMING, BARE),
    table=table,
    logits=logits,
)
