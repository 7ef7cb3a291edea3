"""Which system and variant a state dict is, told from its names and shapes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.kernel_mixture import ENCODER
from converters.tresnet import Naming
from mljax.config.schema import Part, Preprocessing
from mljax.data.readers import adp, chest_xray

# Alibaba-MIIL's TResNets: (blocks a stage, stem width, Bottleneck in all stages).
_TRESNETS: dict[tuple[tuple[int, ...], int, bool], tuple[str | None, str]] = {
    ((3, 4, 11, 3), 64, False): ("tresnet_m", "TResNet-M"),
    ((4, 5, 18, 3), 76, False): ("tresnet_l", "TResNet-L"),
    ((4, 5, 24, 3), 83, False): ("tresnet_xl", "TResNet-XL"),
    ((3, 4, 23, 3), 64, True): ("tresnet_l_v2", "TResNet-L_V2"),
    ((3, 4, 6, 3), 64, False): (None, "TResNet-S"),
    ((3, 8, 34, 5), 64, True): (None, "TResNet-XL of ML-Decoder"),
}
# (blocks a stage, Bottleneck, stem width).
_RESNETS: dict[tuple[tuple[int, ...], bool, int], str] = {
    ((2, 2, 2, 2), False, 64): "resnet18",
    ((3, 4, 6, 3), False, 64): "resnet34",
    ((3, 4, 6, 3), True, 64): "resnet50",
    ((3, 4, 23, 3), True, 64): "resnet101",
}
# Alibaba-MIIL/TResNet's L_V2 has the names and shapes of ImageNet21K's and ML_Decoder's L.
_L_V2_SLOPES = (
    "leaky slopes 1e-2 in the stem and 1e-3 in the blocks unless given, as in ImageNet21K and "
    "ML_Decoder; the Stanford-Cars network of Alibaba-MIIL/TResNet has 1e-6 for both"
)

# KMCL's data sets with statistics of their own, by number of classes: (name, mean, std).
_KMCL_DATASETS = {
    9: ("ADP", adp.MEAN, adp.STD),
    14: ("ChestX-ray14", chest_xray.MEAN, chest_xray.STD),
}
_IMAGENET = ("ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# SupContrast's statistics, by number of classes.
_SUPCON_DATASETS = {
    10: ("CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    100: ("CIFAR-100", (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a state dict holds.

    Attributes:
      backbone: name and arguments for `mljax.create_model`.
      head: likewise.
      num_classes: k; 0 for a zero-shot head, whose word vectors tell it.
      naming: of the backbone.
      head_naming: of the head.
      preprocessing: what the system's networks read unless told otherwise.
      description: one line for people.
      assumption: what the file could not tell and the caller may have to, or nothing.
    """

    backbone: Part
    head: Part
    num_classes: int
    naming: Naming
    head_naming: Naming
    preprocessing: Preprocessing
    description: str
    assumption: str = ""


def detect(tensors: Mapping[str, np.ndarray], name: str = "the source") -> Detection:
    """Tells system, variant and arguments from names and shapes.

    A single missing tensor does not change the answer; the import then reports it.

    Args:
      tensors: a torch state dict without wrapper levels in its names.
      name: of the source, for messages.

    Raises:
      ValueError: for a state dict of no known system.
    """
    if any(key.startswith(f"{ENCODER}body.layer1.0.conv1.") for key in tensors):
        return _detect_kmcl(tensors, name)
    for prefix in ("", ENCODER):
        if any(key.startswith(f"{prefix}layer1.") for key in tensors):
            return _detect_resnet(tensors, prefix, name)
    if not any(key.startswith("body.layer1.0.conv1.") for key in tensors):
        first = ", ".join(list(tensors)[:4])
        raise ValueError(
            f"{name}: is of no known system; known are KMCL, TResNet (original and timm names) "
            "with a linear, bottleneck or ML-Decoder head, and ResNet (torchvision, timm and "
            f"SupContrast names) with a linear or ML-Decoder head. Its first tensors are {first}"
        )
    naming: Naming = "timm" if any(k.startswith("body.conv1.bn.") for k in tensors) else "original"
    backbone, variant = _detect_tresnet(tensors, name)
    head, num_classes, head_text = _detect_head(tensors, name)
    names_text = "timm's names" if naming == "timm" else "original names"
    return Detection(
        backbone=backbone,
        head=head,
        num_classes=num_classes,
        naming=naming,
        head_naming=_ml_decoder_naming(tensors),
        preprocessing=Preprocessing(image_size=224),
        description=f"{variant} ({names_text}), {head_text}, {num_classes or 'any'} classes",
        assumption="224 pixels unless given or in the file's name"
        + (f"; {_L_V2_SLOPES}" if backbone.name == "tresnet_l_v2" else ""),
    )


def _detect_tresnet(tensors: Mapping[str, np.ndarray], name: str) -> tuple[Part, str]:
    layers = tuple(_count_blocks(tensors, f"body.layer{stage}.") for stage in (1, 2, 3, 4))
    if 0 in layers:
        raise ValueError(f"{name}: a TResNet without stage {layers.index(0) + 1}; the file is cut")
    bottleneck = tuple(
        any(key.startswith(f"body.layer{stage}.") and ".conv3." in key for key in tensors)
        for stage in (1, 2, 3, 4)
    )
    width = next((a.shape[0] for key, a in tensors.items() if _is_stem(key, a)), None)
    if width is None:
        raise ValueError(f"{name}: a TResNet without its stem body.conv1; the file is cut")
    uniform = bottleneck in ((False, False, True, True), (True, True, True, True))
    known, text = _TRESNETS.get((layers, width, bottleneck[0]), (None, None))
    if not uniform or text is None:
        stages = " ".join(str(stage + 1) for stage in range(4) if bottleneck[stage]) or "none"
        blocks = "+".join(map(str, layers))
        text = f"TResNet of {blocks} blocks, Bottleneck in stages {stages}, width {width}"
    if uniform and known is not None:
        return Part(name=known), text
    kwargs = {"layers": layers, "width": width, "bottleneck_stages": bottleneck}
    return Part(name="tresnet_m", kwargs=kwargs), text


def _count_blocks(keys: Collection[str], prefix: str) -> int:
    indices = [key[len(prefix) :].split(".")[0] for key in keys if key.startswith(prefix)]
    return max((int(index) + 1 for index in indices if index.isdecimal()), default=0)


def _is_stem(key: str, array: np.ndarray) -> bool:
    return key.startswith("body.conv1.") and array.ndim in (1, 4)


def _detect_head(tensors: Mapping[str, np.ndarray], name: str) -> tuple[Part, int, str]:
    if any(key.startswith("head.decoder.") for key in tensors):
        return _detect_ml_decoder(tensors, name)
    if any(key.startswith("head.fc.FC.") for key in tensors):
        num_classes = _rows(tensors, "head.fc.FC", name)
        size = _rows(tensors, "head.fc.embedding_generator.0", name)
        kwargs = {} if size == 512 else {"embedding_size": size}
        return Part(name="bottleneck", kwargs=kwargs), num_classes, f"bottleneck head of {size}"
    return Part(name="linear"), _rows(tensors, "head.fc", name), "linear head"


def _detect_ml_decoder(
    tensors: Mapping[str, np.ndarray], name: str, source: str = "head"
) -> tuple[Part, int, str]:
    outer = f"{source}.decoder" if _ml_decoder_naming(tensors) == "original" else source
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


def _ml_decoder_naming(tensors: Mapping[str, np.ndarray]) -> Naming:
    """Returns whose ML-Decoder it is; Alibaba-MIIL's can sit on a backbone of timm."""
    timm = ("head.duplicate_", "fc.duplicate_")
    return "timm" if any(key.startswith(timm) for key in tensors) else "original"


def _detect_resnet(tensors: Mapping[str, np.ndarray], prefix: str, name: str) -> Detection:
    body = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    layers = tuple(_count_blocks(body, f"layer{stage}.") for stage in (1, 2, 3, 4))
    width = next((a.shape[0] for key, a in body.items() if key.startswith("bn1.") and a.ndim), None)
    if 0 in layers or width is None:
        raise ValueError(f"{name}: a ResNet without its stem or a whole stage; the file is cut")
    bottleneck = any(key.startswith("layer") and ".conv3." in key for key in body)
    known = _RESNETS.get((layers, bottleneck, width))
    kwargs: dict[str, Any] = {"layers": layers, "bottleneck": bottleneck, "width": width}
    kwargs = {} if known else kwargs
    stem = body.get("conv1.weight")
    cifar = bool(prefix) if stem is None else stem.shape[-1] == 3
    if cifar:
        kwargs["cifar_stem"] = True
    if any(key.startswith(("fc.decoder.", "fc.duplicate_")) for key in tensors):
        head, num_classes, head_text = _detect_ml_decoder(tensors, name, "fc")
    elif prefix and any(key.startswith("head.") for key in tensors):
        head, num_classes, head_text = Part(name="projection"), 0, "projection head"
    else:
        head, num_classes, head_text = Part(name="linear"), _rows(tensors, "fc", name), "linear"
    dataset, mean, std = _SUPCON_DATASETS.get(num_classes, _IMAGENET) if cifar else _IMAGENET
    size = 32 if cifar else 224
    text = known or f"ResNet of {'+'.join(map(str, layers))} blocks, width {width}"
    names_text = "SupContrast's" if prefix else "torchvision's"
    stem_text = "CIFAR" if cifar else "ImageNet"
    return Detection(
        backbone=Part(name=known or "resnet50", kwargs=kwargs),
        head=head,
        num_classes=num_classes,
        naming="supcon" if prefix else "original",
        head_naming=_ml_decoder_naming(tensors),
        preprocessing=Preprocessing(image_size=size, mean=mean, std=std),
        description=(
            f"{text} with {stem_text} stem ({names_text} names), {head_text} head, "
            f"{num_classes or 'any'} classes"
        ),
        assumption=f"{size} pixels, mean and std of {dataset}, unless given",
    )


def _detect_kmcl(tensors: Mapping[str, np.ndarray], name: str) -> Detection:
    encoder = {k.removeprefix(ENCODER): v for k, v in tensors.items() if k.startswith(ENCODER)}
    backbone, variant = _detect_tresnet(encoder, name)
    num_classes = _rows(tensors, "kmm.pi", name)
    anisotropic = any(key.startswith("downsampler.") for key in tensors)
    kwargs: dict[str, Any] = {"covariance": "anisotropic" if anisotropic else "isotropic"}
    if any(key.startswith(("kmm.mean.", "kmm.var.")) for key in tensors):
        kwargs["similarity"] = _detect_similarity(tensors, num_classes, anisotropic, name)
    else:
        kwargs["asymmetric_only"] = True
    if anisotropic and (width := _rows(tensors, "downsampler", name, "reduction")) != 128:
        kwargs["reduced_features"] = width
    size = 224 if backbone.name == "tresnet_m" else 448
    dataset, mean, std = _KMCL_DATASETS.get(num_classes, _IMAGENET)
    kernels = f"{kwargs['covariance']}, {kwargs.get('similarity', 'asymmetric loss only')}"
    return Detection(
        backbone=backbone,
        head=Part(name="kernel_mixture", kwargs=kwargs),
        num_classes=num_classes,
        naming="original",
        head_naming="original",
        preprocessing=Preprocessing(image_size=size, mean=mean, std=std),
        description=f"KMCL {variant}, kernel mixture head ({kernels}), {num_classes} classes",
        assumption=(
            f"{size} pixels, as KMCL's {variant}, unless given or in the file's name; mean and std "
            f"of {dataset}, as KMCL's networks of {num_classes} classes, unless given"
        ),
    )


def _detect_similarity(
    tensors: Mapping[str, np.ndarray], num_classes: int, anisotropic: bool, name: str
) -> str:
    """Returns the similarity, which shows in the number of variances."""
    variances = _rows(tensors, "kmm.var", name, "variances")
    weights = [a for key, a in tensors.items() if key.startswith("kmm.") and a.ndim == 2]
    width = weights[0].shape[1] if weights else 0
    # The last wins: with as many classes as features it is the original's default.
    known = {
        1: "rbf",
        width: "mahalanobis",
        num_classes * (width if anisotropic else 1): "bhattacharyya",
    }
    if variances not in known:
        raise ValueError(
            f"{name}: kmm.var has {variances} outputs, expected {' or '.join(map(str, known))} for "
            f"{num_classes} classes and {width} features"
        )
    return known[variances]


def _rows(
    tensors: Mapping[str, np.ndarray], layer: str, name: str, what: str = "classifier"
) -> int:
    """Returns the number of outputs of a linear layer from its weight or its bias."""
    for key in (f"{layer}.weight", f"{layer}.bias"):
        if key in tensors and tensors[key].ndim:
            return tensors[key].shape[0]
    raise ValueError(f"{name}: has no {what}: neither {layer}.weight nor {layer}.bias")
