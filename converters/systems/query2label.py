"""Query2Label's own checkpoints, and those of tosfaq/deep-object-reid.

Original: SlongLiu/query2labels lib/models/query2label.py on torchvision's ResNet or Alibaba-MIIL's
TResNet. deep_object_reid: tosfaq/deep-object-reid (branch multilabel-paper) torchreid/models/q2l.py
on timm's EfficientNetV2 or its own TResNet-L, with a learned slope in the feed-forward networks.
"""

import dataclasses
from collections.abc import Iterable

from converters.rows import affine, attention, norm
from converters.systems import efficientnet_v2, resnet, tresnet
from converters.systems.aam import unread_classifier
from converters.systems.shapes import count_blocks, has, without
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Row, Table, Transform, copy, first, join, pointwise, row, under
from mljax.backbones.efficientnet_v2 import EfficientNetV2
from mljax.backbones.resnet import ResNet
from mljax.backbones.tresnet import TResNet
from mljax.config import Part
from mljax.heads.query2label import Query2Label, TransformerLayer, sine_positions
from mljax.models.classifier import Classifier

# {naming: (what precedes the names of the backbone, the table of positions, the classifier)}.
# In deep_object_reid, timm's network is one level deeper.
_NAMES: dict[str, tuple[str, str, tuple[str, str]]] = {
    "original": ("backbone.0.body.", "backbone.1.pe", ("fc.W", "fc.b")),
    "deep_object_reid": (
        "backbone.backbone.",
        "backbone.position_embedding.pe",
        ("fc.weight", "fc.bias"),
    ),
}
_POSITIONS = "the table of positions, which is made for every size of map"
_TIMM = "model."
_STRIDE = 32


def matches(tensors: Tensors) -> bool:
    """Returns whether a transformer of Query2Label stands beside a backbone."""
    prefixes = tuple(prefix for prefix, _, _ in _NAMES.values())
    return has(tensors, "transformer.decoder.") and has(tensors, *prefixes)


def detect(
    tensors: Tensors,
    name: str,
    *,
    num_heads: int | None = None,
    stem_slope: float | None = None,
    block_slope: float | None = None,
    same_padding: bool | None = None,
    norm_eps: float | None = None,
) -> Detection:
    """Tells the backbone, the size of the transformer and of its input."""
    naming = next(key for key, (prefix, _, _) in _NAMES.items() if has(tensors, prefix))
    prefix, positions, _ = _NAMES[naming]
    head, num_classes, text = _detect_head(tensors, num_heads, name)
    told = (Part(name="query2label", kwargs=head), num_classes, text)
    body = without(_inner_prefix(prefix, tensors), tensors)
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    variant = {"same_padding": same_padding, "norm_eps": norm_eps}
    foreign = slopes | variant
    if tresnet.matches(body):
        found, foreign = tresnet.detect_with_head(body, name, slopes, *told), variant
    elif efficientnet_v2.matches(body):
        found, foreign = efficientnet_v2.detect_with_head(body, name, variant, *told), slopes
    elif resnet.matches(body):
        found = resnet.detect_with_head(body, name, *told)
    else:
        raise ValueError(f"{name}: a Query2Label on an unknown backbone; the file is cut")
    given = [key for key, value in foreign.items() if value is not None]
    if given:
        raise ValueError(f"{name}: a {found.description} takes no argument {' or '.join(given)}")
    table = tensors.get(positions)
    preprocessing = found.preprocessing
    if table is not None and table.ndim == 4 and table.shape[-1] > 0:
        size = table.shape[-1] * _STRIDE
        preprocessing = dataclasses.replace(preprocessing, image_size=size)
    if naming == "deep_object_reid":
        half = (0.5, 0.5, 0.5)
        preprocessing = dataclasses.replace(preprocessing, mean=half, std=half)
    assumption = found.assumption if num_heads else f"{found.assumption}; 4 attention heads"
    return dataclasses.replace(
        found, naming=naming, preprocessing=preprocessing, assumption=assumption
    )


def _inner_prefix(prefix: str, names: Iterable[str]) -> str:
    """Returns what precedes the names of the backbone, with the level of timm's network."""
    timms = prefix + _TIMM
    return timms if any(name.startswith(timms) for name in names) else prefix


def _detect_head(
    tensors: Tensors, num_heads: int | None, name: str
) -> tuple[dict[str, int | bool | tuple[int, ...]], int, str]:
    """Returns the arguments of the head, its number of classes, and both for people."""
    queries = tensors.get("query_embed.weight")
    widen = tensors.get("transformer.decoder.layers.0.linear1.weight")
    if queries is None or widen is None or queries.ndim != 2:
        raise ValueError(
            f"{name}: a Query2Label without query_embed.weight or its first decoder layer; the "
            "file is cut"
        )
    encoder_layers = count_blocks(tensors, "transformer.encoder.layers.")
    decoder_layers = count_blocks(tensors, "transformer.decoder.layers.")
    layers = [f"transformer.decoder.layers.{n}." for n in range(decoder_layers)]
    kept = tuple(n for n, layer in enumerate(layers) if has(tensors, f"{layer}self_attn."))
    kwargs: dict[str, int | bool | tuple[int, ...]] = {"feed_forward_size": widen.shape[0]}
    told = {
        "embedding_size": queries.shape[1] if has(tensors, "input_proj.") else None,
        "num_heads": num_heads,
        "encoder_layers": encoder_layers if encoder_layers != 1 else None,
        "decoder_layers": decoder_layers if decoder_layers != 2 else None,
        "self_attention": kept or None,
        "pre_norm": has(tensors, "transformer.encoder.norm.") or None,
        "learned_slope": any(".activation." in key for key in tensors) or None,
    }
    kwargs |= {key: value for key, value in told.items() if value is not None}
    text = f"Query2Label head of {encoder_layers} + {decoder_layers} layers of {queries.shape[1]}"
    return kwargs, len(queries), text


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network.

    The original demands its table of positions, which is written for the network's image size; a
    network without preprocessing has none.
    """
    prefix, positions, classifier = _NAMES[naming]
    rows: tuple[Row, ...] = ()
    if model.preprocessing is not None:
        height, width = (size // _STRIDE for size in model.preprocessing.height_width)
        places = sine_positions(height, width, model.head.queries.shape[1]).transpose(2, 0, 1)
        constant = Transform("positions", lambda: (), lambda: (places[None],))
        rows = (Row((positions,), (), constant),)
    fillers = Table(())
    if naming == "deep_object_reid":
        timms = isinstance(model.backbone, EfficientNetV2)
        prefix += _TIMM if timms else ""
        place = f"{prefix}{'classifier' if timms else 'head.fc'}"
        fillers = unread_classifier(place, model.spec.num_classes, model, False)
    return join(
        under(prefix, _backbone_table(model.backbone)),
        fillers,
        Table(rows, {positions: _POSITIONS}),
        query2label_table(model.head, classifier),
    )


def _backbone_table(backbone: TResNet | ResNet | EfficientNetV2) -> Table:
    if isinstance(backbone, TResNet):
        return tresnet.tresnet_table(backbone, "original")
    if isinstance(backbone, ResNet):
        return resnet.resnet_table(backbone, "original")
    unused = {"act2.weight": "a slope that timm's forward pass leaves out"}
    return join(efficientnet_v2.efficientnet_v2_table(backbone), Table((), unused))


def query2label_table(head: Query2Label, classifier: tuple[str, str] = ("fc.W", "fc.b")) -> Table:
    """Returns the table of a Query2Label head, whose path in the network is `head`.

    Args:
      head: tells the layers; it may be abstract.
      classifier: names of the weight and the bias of the logits.
    """
    tables = []
    for stack, layers in (("encoder", head.encoder), ("decoder", head.decoder)):
        for number, layer in enumerate(layers):
            tables.append(
                _layer(layer, f"transformer.{stack}.layers.{number}", f"head.{stack}.{number}")
            )
        if stack == "decoder" or head.encoder_norm is not None:
            tables.append(norm(f"transformer.{stack}.norm", f"head.{stack}_norm"))
    if head.projection is not None:
        tables.append(affine("input_proj", "head.projection", pointwise))
    last = [
        row("query_embed.weight", "head.queries", copy),
        row(classifier[0], "head.kernel", first),
    ]
    if head.bias is not None:
        last.append(row(classifier[1], "head.bias", first))
    return join(*tables, Table(tuple(last)))


def _layer(layer: TransformerLayer, source: str, target: str) -> Table:
    tables = []
    if layer.self_attention is not None:
        tables.append(attention(f"{source}.self_attn", f"{target}.self_attention"))
    if layer.cross_attention is not None:
        tables.append(attention(f"{source}.multihead_attn", f"{target}.cross_attention"))
    tables.append(affine(f"{source}.linear1", f"{target}.feed_forward.expand"))
    tables.append(affine(f"{source}.linear2", f"{target}.feed_forward.reduce"))
    if layer.self_norm is not None:
        tables.append(norm(f"{source}.norm1", f"{target}.self_norm"))
    if layer.cross_norm is not None:
        tables.append(norm(f"{source}.norm2", f"{target}.cross_norm"))
    number = 2 if layer.cross_norm is None else 3
    tables.append(norm(f"{source}.norm{number}", f"{target}.norm"))
    if layer.feed_forward.slope is not None:
        slope = row(f"{source}.activation.weight", f"{target}.feed_forward.slope", copy)
        tables.append(Table((slope,)))
    return join(*tables)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits."""
    from converters.reference.query2label import query2label_logits
    from converters.reference.resnet import resnet_features

    prefix = next(prefix for prefix, _, _ in _NAMES.values() if has(weights, prefix))
    prefix = _inner_prefix(prefix, weights)
    body = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    backbone = model.backbone
    if isinstance(backbone, TResNet):
        features = tresnet.reference_features(body, images, backbone)
    elif isinstance(backbone, EfficientNetV2):
        features = efficientnet_v2.reference_features(body, images, backbone)
    else:
        features = resnet_features(body, images)
    heads = model.head.decoder[0].cross_attention.num_heads
    pre_norm = model.head.decoder[0].pre_norm
    return query2label_logits(weights, features, num_heads=heads, pre_norm=pre_norm)


SYSTEM = System(
    name="Query2Label",
    networks="ResNet and TResNet with the head of query2labels; EfficientNetV2 and TResNet-L with "
    "that of deep-object-reid",
    matches=matches,
    detect=detect,
    arguments={
        "num_heads": "of every attention: 4 unless given",
        **tresnet.SLOPES,
        **efficientnet_v2.VARIANT,
    },
    pairs=((ResNet, Query2Label), (TResNet, Query2Label), (EfficientNetV2, Query2Label)),
    namings=("original", "deep_object_reid"),
    table=table,
    logits=logits,
)
