"""EfficientNetV2 with a linear head or none, by timm's names.

huggingface/pytorch-image-models `timm/models/efficientnet.py`: `tf_efficientnetv2_{b0,s,m,l}`, of
any training (`.in1k`, `.in21k`, `.in21k_ft_in1k`), and `efficientnetv2_{s,m,l}`.
"""

from converters.rows import affine, conv_norm
from converters.systems.resnet import IMAGENET
from converters.systems.shapes import count_blocks, count_outputs, has
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.systems.tresnet import NO_CLASSIFIER, linear_table
from converters.table import Table, join, pointwise
from mljax.backbones.efficientnet_v2 import EfficientNetV2, FusedBlock, PlainBlock
from mljax.config import Part, Preprocessing
from mljax.heads.linear import AVERAGE, Linear
from mljax.heads.pooled import Pooled
from mljax.models.classifier import Classifier

VARIANT = {
    "same_padding": "TensorFlow's padding, as in tf_efficientnetv2_*: true unless given; false in "
    "efficientnetv2_*",
    "norm_eps": "of batch norm: 1e-3 unless given; 1e-5 in efficientnetv2_*",
}
_POOLING = "over space: average unless given; max or average_plus_max in some of Deep Object ReID"

# {(blocks a stage, channels of the stem, of the stages, of the map): name}.
_VARIANTS: dict[tuple[tuple[int, ...], int, tuple[int, ...], int], str] = {
    ((1, 2, 2, 3, 5, 8), 32, (16, 32, 48, 96, 112, 192), 1280): "efficientnet_v2_b0",
    ((2, 4, 4, 6, 9, 15), 24, (24, 48, 64, 128, 160, 256), 1280): "efficientnet_v2_s",
    ((3, 5, 5, 7, 14, 18, 5), 24, (24, 48, 80, 160, 176, 304, 512), 1280): "efficientnet_v2_m",
    ((4, 7, 7, 10, 19, 25, 7), 32, (32, 64, 96, 192, 224, 384, 640), 1280): "efficientnet_v2_l",
}
# The norm behind a block's last convolution, by stage.
_LAST_NORM = ("bn1", "bn2", "bn2", "bn3", "bn3", "bn3", "bn3")


def matches(tensors: Tensors) -> bool:
    """Returns whether there are fused blocks, which hardly any other network has."""
    return any(name.startswith("blocks.") and ".conv_exp." in name for name in tensors)


def detect(
    tensors: Tensors,
    name: str,
    *,
    same_padding: bool | None = None,
    norm_eps: float | None = None,
    pooling: str | None = None,
) -> Detection:
    """Tells the variant."""
    given = {"same_padding": same_padding, "norm_eps": norm_eps}
    if not has(tensors, "classifier."):
        if pooling is not None:
            raise ValueError(f"{name}: takes no pooling, because it has no classifier")
        return detect_with_head(tensors, name, given, Part(name="pooled"), 0, NO_CLASSIFIER)
    num_classes = count_outputs(tensors, "classifier", name)
    head = Part(name="linear", kwargs={"pooling": Part(name=pooling)} if pooling else {})
    return detect_with_head(tensors, name, given, head, num_classes, "linear head")


def detect_with_head(
    tensors: Tensors,
    name: str,
    given: dict[str, bool | float | None],
    head: Part,
    num_classes: int,
    head_text: str,
) -> Detection:
    """Returns the detection of an EfficientNetV2 under a head that is told already.

    Args:
      tensors: the state dict, with timm's names for the backbone.
      name: of the source, for messages.
      given: arguments of the backbone that the file cannot tell; None is its default.
      head: the head.
      num_classes: k, or 0.
      head_text: the head, for people.
    """
    backbone, variant = detect_backbone(tensors, name, given)
    half = (0.5, 0.5, 0.5)
    # In timm, B0 alone has ImageNet's statistics.
    what, mean, std = IMAGENET if variant.endswith("b0") else ("0.5", half, half)
    return Detection(
        backbone=backbone,
        head=head,
        num_classes=num_classes,
        naming="timm",
        preprocessing=Preprocessing(image_size=224, mean=mean, std=std),
        description=f"{variant} (timm's names), {head_text}, {num_classes or 'no'} classes",
        assumption=f"224 pixels, mean and std of {what}, TensorFlow's padding and norm_eps 1e-3, "
        "unless given",
    )


def detect_backbone(
    tensors: Tensors, name: str, given: dict[str, bool | float | None]
) -> tuple[Part, str]:
    """Returns the backbone, and its variant for people.

    Args:
      tensors: the state dict, with timm's names for the backbone.
      name: of the source, for messages.
      given: arguments of the backbone that the file cannot tell; None is its default.

    Raises:
      ValueError: for a file that is cut, or stages of other blocks than EfficientNetV2's.
    """
    stages = count_blocks(tensors, "blocks.")
    layers = tuple(count_blocks(tensors, f"blocks.{stage}.") for stage in range(stages))
    if stages not in (6, 7) or 0 in layers:
        raise ValueError(
            f"{name}: an EfficientNetV2 has 6 or 7 stages of blocks, got {layers} blocks; the file "
            "is cut, or another network"
        )
    norms = [f"blocks.{stage}.0.{_LAST_NORM[stage]}." for stage in range(stages)]
    stem, last, *found = (_channels(tensors, norm) for norm in ("bn1.", "bn2.", *norms))
    widths = tuple(width for width in found if width is not None)
    if stem is None or last is None or len(widths) != stages:
        raise ValueError(
            f"{name}: an EfficientNetV2 without its stem bn1, its last norm bn2, or the norms of a "
            "stage; the file is cut, or another network"
        )
    kwargs = {key: value for key, value in given.items() if value is not None}
    known = _VARIANTS.get((layers, stem, widths, last))
    if known is not None:
        return Part(name=known, kwargs=kwargs), known
    shape = {"layers": layers, "widths": widths, "stem_width": stem, "num_features": last}
    text = f"EfficientNetV2 of {'+'.join(map(str, layers))} blocks"
    return Part(name="efficientnet_v2_s", kwargs=shape | kwargs), text


def _channels(tensors: Tensors, prefix: str) -> int | None:
    """Returns the length of any array under a prefix, or None."""
    return next((a.shape[0] for n, a in tensors.items() if n.startswith(prefix) and a.ndim), None)


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    del naming  # There is one.
    return join(efficientnet_v2_table(model.backbone), linear_table(model.head, "classifier"))


def efficientnet_v2_table(
    backbone: EfficientNetV2, *, source: str = "", target: str = "backbone"
) -> Table:
    """Returns the table of an EfficientNetV2 without its head.

    Args:
      backbone: tells which blocks there are; it may be abstract.
      source: what precedes the names in the state dict, such as `backbone.model.`.
      target: path of the backbone in the network.
    """
    tables = [conv_norm(f"{source}conv_stem", f"{source}bn1", f"{target}.stem")]
    for stage, blocks in enumerate(backbone.stages):
        for index, block in enumerate(blocks):
            old, new = f"{source}blocks.{stage}.{index}", f"{target}.stages.{stage}.{index}"
            if isinstance(block, PlainBlock):
                tables.append(conv_norm(f"{old}.conv", f"{old}.bn1", f"{new}.conv"))
            elif isinstance(block, FusedBlock):
                tables.append(conv_norm(f"{old}.conv_exp", f"{old}.bn1", f"{new}.expand"))
                tables.append(conv_norm(f"{old}.conv_pwl", f"{old}.bn2", f"{new}.project"))
            else:
                attention = f"{new}.squeeze_excite"
                tables += [
                    conv_norm(f"{old}.conv_pw", f"{old}.bn1", f"{new}.expand"),
                    conv_norm(f"{old}.conv_dw", f"{old}.bn2", f"{new}.depthwise"),
                    affine(f"{old}.se.conv_reduce", f"{attention}.reduce", pointwise),
                    affine(f"{old}.se.conv_expand", f"{attention}.expand", pointwise),
                    conv_norm(f"{old}.conv_pwl", f"{old}.bn3", f"{new}.project"),
                ]
    tables.append(conv_norm(f"{source}conv_head", f"{source}bn2", f"{target}.last"))
    return join(*tables)


def reference_features(
    weights: dict[str, Tensor], images: Tensor, backbone: EfficientNetV2, *, source: str = ""
) -> Tensor:
    """Returns torch's feature map; of the backbone only padding and epsilon are read."""
    from converters.reference.efficientnet_v2 import efficientnet_v2_features

    return efficientnet_v2_features(
        weights,
        images,
        same_padding=backbone.same_padding,
        norm_eps=backbone.stem.norm.eps,
        source=source,
    )


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor | None:
    """Returns torch's logits; None for a pooling that the reference lacks."""
    from converters.reference.linear import linear_logits

    if getattr(model.head, "pooling", AVERAGE) != AVERAGE:
        return None
    return linear_logits(weights, reference_features(weights, images, model.backbone), "classifier")


SYSTEM = System(
    name="EfficientNetV2",
    networks="EfficientNetV2 with a linear head of timm",
    matches=matches,
    detect=detect,
    arguments={**VARIANT, "pooling": _POOLING},
    validation="the shorter side (M and L: both sides) to that of the input, bicubic, its center",
    pairs=((EfficientNetV2, Linear), (EfficientNetV2, Pooled)),
    namings=("timm",),
    table=table,
    logits=logits,
)
