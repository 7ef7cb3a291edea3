"""ML-Decoder heads on a TResNet or a ResNet, by the names of Alibaba-MIIL and of timm.

Original: Alibaba-MIIL/ML_Decoder ml_decoder.py, under `head.` in a TResNet and `fc.` in a ResNet,
also where timm made the backbone. timm (huggingface/pytorch-image-models `ml_decoder.py`) holds all
but the decoder layer one level higher, and has no zero-shot mode.
"""

import dataclasses

import numpy as np

from converters.rows import affine, attention, norm
from converters.systems import resnet, supcon, tresnet
from converters.systems.shapes import has
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Table, Transform, copy, join, row
from mljax.backbones.resnet import ResNet
from mljax.backbones.tresnet import TResNet
from mljax.config import Part
from mljax.heads.ml_decoder import MLDecoder
from mljax.models.classifier import Classifier

_WORDS = "the word vectors come with the data set"


def matches(tensors: Tensors) -> bool:
    """Returns whether an ML-Decoder stands where a known backbone has the classifier."""
    backbones = (tresnet, resnet, supcon)
    source = _place(tensors)
    return any(backbone.matches(tensors) for backbone in backbones) and has(
        tensors, f"{source}.decoder.", f"{source}.duplicate_"
    )


def _place(tensors: Tensors) -> str:
    """Returns the path of the head in the state dict."""
    return "head" if tresnet.matches(tensors) else "fc"


def detect(
    tensors: Tensors,
    name: str,
    *,
    stem_slope: float | None = None,
    block_slope: float | None = None,
    word_vectors: np.ndarray | None = None,
) -> Detection:
    """Tells the backbone, and groups from zero-shot mode.

    The naming is of both where backbone and head have the names of different codes: timm's TResNet
    with Alibaba-MIIL's head is `timm/original`.
    """
    source = _place(tensors)
    head_naming = "timm" if has(tensors, f"{source}.duplicate_") else "original"
    head = _detect_head(tensors, source, head_naming, name)
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    slopes = {key: value for key, value in slopes.items() if value is not None}
    if source == "head":
        found = tresnet.detect_with_head(tensors, name, slopes, *head)
    elif slopes:
        raise ValueError(f"{name}: a ResNet takes no argument {' or '.join(slopes)}")
    else:
        prefix = supcon.ENCODER if supcon.matches(tensors) else ""
        found = resnet.detect_with_head(tensors, name, *head, prefix=prefix)
    if found.naming != head_naming:
        found = dataclasses.replace(found, naming=f"{found.naming}/{head_naming}")
    return _with_words(found, word_vectors, name)


def _detect_head(tensors: Tensors, source: str, naming: str, name: str) -> tuple[Part, int, str]:
    """Returns the head, its number of classes (0 in zero-shot mode), and both for people."""
    outer = f"{source}.decoder" if naming == "original" else source
    pooling = tensors.get(f"{outer}.duplicate_pooling")
    bias = tensors.get(f"{outer}.duplicate_pooling_bias")
    if bias is None or pooling is None:
        raise ValueError(f"{name}: an ML-Decoder head without its group pooling; the file is cut")
    feed_forward = tensors.get(f"{source}.decoder.layers.0.linear1.weight")
    kwargs = {"embedding_size": pooling.shape[-2]}
    if feed_forward is not None and feed_forward.shape[0] != 2048:
        kwargs["feed_forward_size"] = feed_forward.shape[0]
    words = tensors.get(f"{source}.wordvec_proj.weight")
    if words is not None:
        kwargs["word_vector_size"] = words.shape[1]
        return Part(name="ml_decoder", kwargs=kwargs), 0, "zero-shot ML-Decoder head"
    kwargs["num_groups"] = pooling.shape[0]
    text = f"ML-Decoder head ({pooling.shape[0]} groups of width {pooling.shape[1]})"
    return Part(name="ml_decoder", kwargs=kwargs), bias.shape[0], text


def _with_words(found: Detection, words: np.ndarray | None, name: str) -> Detection:
    """Returns the detection with the word vectors `[k, w]`; those of the release are `[w, k]`."""
    width = found.head.kwargs.get("word_vector_size")
    if width is None:
        if words is not None:
            raise ValueError(f"{name}: is a {found.description}, which takes no word_vectors")
        return found
    if words is None or np.ndim(words) != 2 or width not in np.shape(words):
        raise ValueError(
            f"{name}: is a {found.description}, which needs word_vectors [classes, {width}], got "
            f"{None if words is None else np.shape(words)}; they come with the data set, not with "
            "the weights"
        )
    words = np.asarray(words)
    words = words if words.shape[1] == width else words.T
    arrays = {"head.word_vectors": words}
    return dataclasses.replace(found, num_classes=len(words), arrays=arrays)


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    naming, _, head_naming = naming.partition("/")
    if isinstance(model.backbone, TResNet):
        body, source = tresnet.tresnet_table(model.backbone, naming), "head"
    else:
        body, source = resnet.resnet_table(model.backbone, naming), "fc"
    return join(body, ml_decoder_table(model.head, head_naming or naming, source=source))


def ml_decoder_table(
    head: MLDecoder, naming: str, *, source: str = "head", target: str = "head"
) -> Table:
    """Returns the table of an ML-Decoder head, grouped or zero-shot.

    Args:
      head: tells the mode; it may be abstract.
      naming: of the source: `timm`, or any other for the original names.
      source: path of the head in the state dict: `head`, or `fc` in a ResNet.
      target: path of the head in the network.
    """
    outer = source if naming == "timm" else f"{source}.decoder"
    pool = shared_pool if head.zero_shot else copy
    shared = join(
        Table(
            (
                row(f"{outer}.duplicate_pooling", f"{target}.pool", pool),
                row(f"{outer}.duplicate_pooling_bias", f"{target}.bias", copy),
            )
        ),
        _decoder_layer(f"{source}.decoder.layers.0", f"{target}.layer"),
        affine(f"{outer}.embed_standart", f"{target}.embed"),
    )
    if head.zero_shot:
        words = Table((), kept={f"{target}.word_vectors": _WORDS})
        return join(shared, affine(f"{source}.wordvec_proj", f"{target}.word_projection"), words)
    return join(shared, Table((row(f"{outer}.query_embed.weight", f"{target}.queries", copy),)))


def _decoder_layer(source: str, target: str) -> Table:
    norms = [norm(f"{source}.norm{n}", f"{target}.norm{n}") for n in (1, 2, 3)]
    return join(
        norms[0],
        attention(f"{source}.multihead_attn", f"{target}.attention"),
        affine(f"{source}.linear1", f"{target}.expand"),
        affine(f"{source}.linear2", f"{target}.reduce"),
        *norms[1:],
    )


# Zero-shot heads share one weight vector [d, 1], which is a pool of one group here.
shared_pool = Transform("shared_pool", lambda pool: (pool[None],), lambda pool: (pool[0],))


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits; the word vectors of a zero-shot head are the model's."""
    from converters.reference.ml_decoder import ml_decoder_logits
    from converters.reference.resnet import resnet_features

    if isinstance(model.backbone, TResNet):
        features, source = tresnet.reference_features(weights, images, model.backbone), "head"
    else:
        features, source = resnet_features(weights, images), "fc"
    words = None
    if model.head.zero_shot:
        words = features.new_tensor(np.asarray(model.head.word_vectors[...]))
    heads = model.head.layer.attention.num_heads
    return ml_decoder_logits(weights, features, source, num_heads=heads, words=words)


SYSTEM = System(
    name="ML-Decoder",
    networks="TResNet and ResNet with the ML-Decoder head of ML_Decoder (also zero-shot) or timm",
    matches=matches,
    detect=detect,
    arguments={
        **tresnet.SLOPES,
        "word_vectors": "of the classes of a zero-shot head, [k, w] or [w, k]: a .npy file, or "
        "the release's wordvec_array.pth",
    },
    pairs=((TResNet, MLDecoder), (ResNet, MLDecoder)),
    namings=(
        *("original", "timm", "supcon"),
        *("original/timm", "timm/original", "supcon/original", "supcon/timm"),
    ),
    table=table,
    logits=logits,
)
