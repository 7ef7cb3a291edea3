"""ResNet with a linear head or none, by the names of torchvision, which timm shares.

torchvision `models/resnet.py`.
"""

from converters.rows import conv_norm
from converters.systems.shapes import count_blocks, count_outputs, has, without
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.systems.tresnet import NO_CLASSIFIER, linear_table
from converters.table import Table, join
from mljax.backbones.resnet import ResNet
from mljax.config import Part, Preprocessing
from mljax.heads.linear import Linear
from mljax.heads.pooled import Pooled
from mljax.models.classifier import Classifier

FROZEN = {
    "frozen_norm": "batch norm that no training changes, as Query2Label's: false unless given"
}
# (blocks a stage, Bottleneck, stem width).
_VARIANTS: dict[tuple[tuple[int, ...], bool, int], str] = {
    ((2, 2, 2, 2), False, 64): "resnet18",
    ((3, 4, 6, 3), False, 64): "resnet34",
    ((3, 4, 6, 3), True, 64): "resnet50",
    ((3, 4, 23, 3), True, 64): "resnet101",
}
# (data set, mean, standard deviation).
IMAGENET = ("ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# SupContrast's statistics, which networks with a CIFAR stem read, by number of classes.
_CIFAR = {
    10: ("CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    100: ("CIFAR-100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


def matches(tensors: Tensors) -> bool:
    """Returns whether the stages are a ResNet's."""
    return has(tensors, "layer1.")


def detect(tensors: Tensors, name: str, *, frozen_norm: bool | None = None) -> Detection:
    """Tells the variant and its stem."""
    head, num_classes, text = Part(name="pooled"), 0, NO_CLASSIFIER
    if has(tensors, "fc."):
        head, num_classes, text = (
            Part(name="linear"),
            count_outputs(tensors, "fc", name),
            "linear head",
        )
    return detect_with_head(tensors, name, head, num_classes, text, frozen_norm=frozen_norm)


def detect_with_head(
    tensors: Tensors,
    name: str,
    head: Part,
    num_classes: int,
    head_text: str,
    *,
    prefix: str = "",
    frozen_norm: bool | None = None,
) -> Detection:
    """Returns the detection of a ResNet under a head that is told already.

    Args:
      tensors: the state dict.
      name: of the source, for messages.
      head: the head.
      num_classes: k, or 0.
      head_text: the head, for people.
      prefix: what precedes the names of the backbone: nothing, or SupContrast's `encoder.`.
      frozen_norm: of the backbone; None is its default.

    Raises:
      ValueError: for a file without stem or without a stage.
    """
    body = without(prefix, tensors)
    layers = tuple(count_blocks(body, f"layer{stage}.") for stage in (1, 2, 3, 4))
    width = next((a.shape[0] for key, a in body.items() if key.startswith("bn1.") and a.ndim), None)
    if 0 in layers or width is None:
        raise ValueError(f"{name}: a ResNet without its stem or a whole stage; the file is cut")
    bottleneck = any(key.startswith("layer") and ".conv3." in key for key in body)
    known = _VARIANTS.get((layers, bottleneck, width))
    kwargs = {} if known else {"layers": layers, "bottleneck": bottleneck, "width": width}
    stem = body.get("conv1.weight")
    cifar = bool(prefix) if stem is None else stem.shape[-1] == 3
    if cifar:
        kwargs["cifar_stem"] = True
    if frozen_norm is not None:
        kwargs["frozen_norm"] = frozen_norm
    dataset, mean, std = _CIFAR.get(num_classes, IMAGENET) if cifar else IMAGENET
    size = 32 if cifar else 224
    text = known or f"ResNet of {'+'.join(map(str, layers))} blocks, width {width}"
    stem_text = "CIFAR" if cifar else "ImageNet"
    names_text = "SupContrast's" if prefix else "torchvision's"
    return Detection(
        backbone=Part(name=known or "resnet50", kwargs=kwargs),
        head=head,
        num_classes=num_classes,
        naming="supcon" if prefix else "original",
        preprocessing=Preprocessing(image_size=size, mean=mean, std=std),
        description=(
            f"{text} with {stem_text} stem ({names_text} names), {head_text}, "
            f"{num_classes or 'no'} classes"
        ),
        assumption=f"{size} pixels, mean and std of {dataset}, unless given",
    )


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    return join(resnet_table(model.backbone, naming), linear_table(model.head, "fc"))


def resnet_table(backbone: ResNet, naming: str, *, target: str = "backbone") -> Table:
    """Returns the table of a ResNet without its head.

    Args:
      backbone: tells which blocks and shortcuts there are; it may be abstract.
      naming: of the source: `original` and `timm` are the same here; `supcon` has the network
        under `encoder.`, and calls a block's downsample its shortcut.
      target: path of the backbone in the network.
    """
    source, shortcut = ("encoder.", "shortcut") if naming == "supcon" else ("", "downsample")
    tables = [conv_norm(f"{source}conv1", f"{source}bn1", f"{target}.stem")]
    for stage, blocks in enumerate(backbone.stages):
        for index, block in enumerate(blocks):
            old = f"{source}layer{stage + 1}.{index}"
            new = f"{target}.stages.{stage}.{index}"
            for number in range(1, 4 if hasattr(block, "conv3") else 3):
                unit = f"{new}.conv{number}"
                tables.append(conv_norm(f"{old}.conv{number}", f"{old}.bn{number}", unit))
            if block.shortcut is not None:
                pair = f"{old}.{shortcut}"
                tables.append(conv_norm(f"{pair}.0", f"{pair}.1", f"{new}.shortcut"))
    return join(*tables)


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits."""
    del model  # The weights tell everything.
    from converters.reference.linear import linear_logits
    from converters.reference.resnet import resnet_features

    return linear_logits(weights, resnet_features(weights, images), "fc")


SYSTEM = System(
    name="ResNet",
    networks="ResNet with a linear head of torchvision or timm",
    matches=matches,
    detect=detect,
    arguments=FROZEN,
    validation="the shorter side to that of the input / 0.875, then its center",
    pairs=((ResNet, Linear), (ResNet, Pooled)),
    namings=("original", "timm"),
    table=table,
    logits=logits,
)
