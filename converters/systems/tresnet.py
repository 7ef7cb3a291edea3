"""TResNet with a linear or bottleneck head or none, by the names of Alibaba-MIIL and of timm.

Original: Alibaba-MIIL/TResNet, ASL, PartialLabelingCSL and ImageNet21K share one set of names and
hold the raw weight of in-place activated batch norm, whose gain is |weight| + 1e-5. timm
(huggingface/pytorch-image-models `tresnet.py`) renames the layers and holds the gains.
"""

from collections.abc import Mapping

import numpy as np

from converters.rows import COUNTER, affine, conv_norm
from converters.systems.shapes import count_blocks, count_outputs, has
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Arrays, Row, Table, Transform, copy, join, pointwise, row
from mljax.backbones.tresnet import TResNet
from mljax.config import Part, Preprocessing
from mljax.heads.linear import Linear
from mljax.heads.pooled import Pooled
from mljax.models.classifier import Classifier

NAMINGS = ("original", "timm")
SLOPES = {
    "stem_slope": "of the stem's leaky rectifier: 1e-2 unless given; 1e-6 in "
    "stanford_cars_tresnet-l-v2_96_27.pth",
    "block_slope": "of the blocks' leaky rectifiers: 1e-3 unless given; 1e-6 in the same file",
}

# (blocks a stage, stem width, Bottleneck in all stages).
_VARIANTS: dict[tuple[tuple[int, ...], int, bool], tuple[str | None, str]] = {
    ((3, 4, 11, 3), 64, False): ("tresnet_m", "TResNet-M"),
    ((4, 5, 18, 3), 76, False): ("tresnet_l", "TResNet-L"),
    ((4, 5, 24, 3), 83, False): ("tresnet_xl", "TResNet-XL"),
    ((3, 4, 23, 3), 64, True): ("tresnet_l_v2", "TResNet-L_V2"),
    ((3, 4, 6, 3), 64, False): (None, "TResNet-S"),
    ((3, 8, 34, 5), 64, True): (None, "TResNet-XL of ML-Decoder"),
}
# Alibaba-MIIL/TResNet's L_V2 has the names and shapes of ImageNet21K's and ML_Decoder's L.
_L_V2_SLOPES = (
    "leaky slopes 1e-2 in the stem and 1e-3 in the blocks unless given, as in ImageNet21K and "
    "ML_Decoder; the Stanford-Cars network of Alibaba-MIIL/TResNet has 1e-6 for both"
)
# What a network without classifier is, for people.
NO_CLASSIFIER = "no classifier in the file: a backbone for model.init_from"
_EPS = np.float32(1e-5)
_BLUR = "the constant filter of the blur-pool"


def matches(tensors: Tensors) -> bool:
    """Returns whether the body is a TResNet's."""
    return has(tensors, "body.layer1.0.conv1.")


def detect(
    tensors: Tensors,
    name: str,
    *,
    stem_slope: float | None = None,
    block_slope: float | None = None,
) -> Detection:
    """Tells the variant, and a linear head from one with an embedding before the classifier."""
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    if not has(tensors, "head."):
        return detect_with_head(tensors, name, slopes, Part(name="pooled"), 0, NO_CLASSIFIER)
    if not has(tensors, "head.fc.FC."):
        num_classes = count_outputs(tensors, "head.fc", name)
        return detect_with_head(
            tensors, name, slopes, Part(name="linear"), num_classes, "linear head"
        )
    num_classes = count_outputs(tensors, "head.fc.FC", name)
    size = count_outputs(tensors, "head.fc.embedding_generator.0", name)
    head = Part(name="bottleneck", kwargs={} if size == 512 else {"embedding_size": size})
    return detect_with_head(tensors, name, slopes, head, num_classes, f"bottleneck head of {size}")


def detect_with_head(
    tensors: Tensors,
    name: str,
    slopes: Mapping[str, float | None],
    head: Part,
    num_classes: int,
    head_text: str,
) -> Detection:
    """Returns the detection of a TResNet under a head that is told already."""
    backbone, variant = detect_backbone(tensors, name, slopes)
    naming = "timm" if has(tensors, "body.conv1.bn.") else "original"
    names_text = "timm's names" if naming == "timm" else "original names"
    return Detection(
        backbone=backbone,
        head=head,
        num_classes=num_classes,
        naming=naming,
        preprocessing=Preprocessing(image_size=224),
        description=f"{variant} ({names_text}), {head_text}, {num_classes or 'no'} classes",
        assumption="224 pixels unless given or in the file's name"
        + (f"; {_L_V2_SLOPES}" if backbone.name == "tresnet_l_v2" else ""),
    )


def detect_backbone(
    tensors: Tensors, name: str, slopes: Mapping[str, float | None]
) -> tuple[Part, str]:
    """Returns the backbone, and its variant for people.

    Args:
      tensors: a state dict with the names of either naming.
      name: of the source, for messages.
      slopes: arguments of the backbone that the file cannot tell; None is its default.

    Raises:
      ValueError: for a file without stem or without a stage.
    """
    layers = tuple(count_blocks(tensors, f"body.layer{stage}.") for stage in (1, 2, 3, 4))
    if 0 in layers:
        raise ValueError(f"{name}: a TResNet without stage {layers.index(0) + 1}; the file is cut")
    bottleneck = tuple(
        any(key.startswith(f"body.layer{stage}.") and ".conv3." in key for key in tensors)
        for stage in (1, 2, 3, 4)
    )
    width = next((a.shape[0] for key, a in tensors.items() if _is_stem(key, a)), None)
    if width is None:
        raise ValueError(f"{name}: a TResNet without its stem body.conv1; the file is cut")
    given = {key: value for key, value in slopes.items() if value is not None}
    uniform = bottleneck in ((False, False, True, True), (True, True, True, True))
    known, text = _VARIANTS.get((layers, width, bottleneck[0]), (None, None))
    if not uniform or text is None:
        stages = " ".join(str(stage + 1) for stage in range(4) if bottleneck[stage]) or "none"
        blocks = "+".join(map(str, layers))
        text = f"TResNet of {blocks} blocks, Bottleneck in stages {stages}, width {width}"
    if uniform and known is not None:
        return Part(name=known, kwargs=given), text
    kwargs = {"layers": layers, "width": width, "bottleneck_stages": bottleneck}
    return Part(name="tresnet_m", kwargs=kwargs | given), text


def _is_stem(key: str, array: np.ndarray) -> bool:
    return key.startswith("body.conv1.") and array.ndim in (1, 4)


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    return join(tresnet_table(model.backbone, naming), linear_table(model.head, "head.fc"))


def tresnet_table(
    backbone: TResNet, naming: str, *, source: str = "", target: str = "backbone"
) -> Table:
    """Returns the table of a TResNet without its head.

    Args:
      backbone: tells which blocks, shortcuts and attentions there are; it may be abstract.
      naming: of the source.
      source: what precedes the names in the state dict, such as `encoder.`.
      target: path of the backbone in the network.

    Raises:
      ValueError: for another naming.
    """
    if naming not in NAMINGS:
        raise ValueError(f"TResNets have {' or '.join(NAMINGS)} names, got naming={naming!r}")
    tables = [_unit(f"{source}body.conv1", f"{target}.stem", naming)]
    for stage, blocks in enumerate(backbone.stages):
        for index, block in enumerate(blocks):
            old = f"{source}body.layer{stage + 1}.{index}"
            new = f"{target}.stages.{stage}.{index}"
            has_conv3 = hasattr(block, "conv3")
            strided = "conv2" if has_conv3 else "conv1"
            for unit in ("conv1", "conv2", "conv3")[: 3 if has_conv3 else 2]:
                blurred = block.stride == 2 and unit == strided
                tables.append(_unit(f"{old}.{unit}", f"{new}.{unit}", naming, blurred=blurred))
            if block.shortcut is not None:
                # Index 0 is the average pool where there is one.
                position = 1 if block.stride == 2 else 0
                tables.append(_unit(f"{old}.downsample.{position}", f"{new}.shortcut", naming))
            if block.squeeze_excite is not None:
                for layer, renamed in (("fc1", "reduce"), ("fc2", "expand")):
                    path = f"{new}.squeeze_excite.{renamed}"
                    tables.append(affine(f"{old}.se.{layer}", path, pointwise))
    return join(*tables)


def linear_table(head: Linear | Pooled, source: str, *, target: str = "head") -> Table:
    """Returns the table of the linear head, with or without the embedding before the classifier.

    A head without classifier has no rows.
    """
    if isinstance(head, Pooled):
        return Table(())
    if head.embedding is None:
        return affine(source, f"{target}.linear")
    return join(
        affine(f"{source}.embedding_generator.0", f"{target}.embedding"),
        affine(f"{source}.FC", f"{target}.linear"),
    )


def _unit(source: str, target: str, naming: str, *, blurred: bool = False) -> Table:
    """Returns the table of a convolution and its activated batch norm."""
    if naming == "original":
        # The blur-pool behind a unit puts it one level deeper.
        inner = f"{source}.0" if blurred else source
        blur = Table((), {f"{source}.1.op.filt": _BLUR} if blurred else {})
        return join(conv_norm(f"{inner}.0", f"{inner}.1", target), blur)
    sources = (f"{source}.conv.weight", f"{source}.bn.weight", f"{source}.bn.running_mean")
    targets = (f"{target}.conv.kernel", f"{target}.norm.scale", f"{target}.norm.mean")
    rows = (
        Row(sources, targets, timm_unit),
        row(f"{source}.bn.bias", f"{target}.norm.bias", copy),
        row(f"{source}.bn.running_var", f"{target}.norm.var", copy),
    )
    return Table(rows, {f"{source}.bn.num_batches_tracked": COUNTER})


def _timm_to_jax(weight: np.ndarray, gain: np.ndarray, mean: np.ndarray) -> Arrays:
    # timm trains the gain itself, so home-grown files may hold negative ones. |scale| + eps cannot
    # be negative, but the sign can move into the convolution and its running mean, exactly.
    sign = np.where(gain < 0, -1, 1).astype(weight.dtype)
    kernel = (weight * sign[:, None, None, None]).transpose(2, 3, 1, 0)
    return kernel, _raw_scale(np.abs(gain)), mean * sign


def _timm_to_torch(kernel: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> Arrays:
    return kernel.transpose(3, 2, 0, 1), np.abs(scale) + _EPS, mean


def _raw_scale(gain: np.ndarray) -> np.ndarray:
    """Returns the float32 scale for which |scale| + 1e-5 is the float32 `gain`.

    That is exact for every gain that is such a sum, as all of timm's published ones; any other
    (trained in timm) is met to one rounding. Gains below 1e-5 become 1e-5, the smallest gain of an
    activated batch norm.
    """
    gain = np.maximum(gain.astype(np.float32), _EPS)
    scale = gain - _EPS
    # The difference was rounded once: where adding back rounds elsewhere, a neighbor is right.
    for direction in (np.float32(np.inf), np.float32(-np.inf)):
        neighbor = np.nextafter(gain - _EPS, direction)
        better = np.abs(neighbor + _EPS - gain) < np.abs(scale + _EPS - gain)
        scale = np.where(better, neighbor, scale)
    return scale


timm_unit = Transform("timm_unit", _timm_to_jax, _timm_to_torch)


def reference_features(weights: dict[str, Tensor], images: Tensor, backbone: TResNet) -> Tensor:
    """Returns torch's feature map; of the backbone only the slopes are read."""
    from converters.reference.tresnet import tresnet_features

    slopes = {
        "stem_slope": backbone.stem.norm.slope,
        "block_slope": backbone.stages[0][0].conv1.norm.slope,
    }
    return tresnet_features(weights, images, **slopes)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits."""
    from converters.reference.linear import linear_logits

    return linear_logits(weights, reference_features(weights, images, model.backbone), "head.fc")


SYSTEM = System(
    name="TResNet",
    networks="TResNet with a linear or bottleneck head of ASL, CSL, ImageNet21K or timm",
    matches=matches,
    detect=detect,
    arguments=SLOPES,
    validation=(
        "height and width to the side of the input, bilinear; on ImageNet at 224 pixels, the "
        "shorter side to 256, then its center"
    ),
    pairs=((TResNet, Linear), (TResNet, Pooled)),
    namings=NAMINGS,
    table=table,
    logits=logits,
)
