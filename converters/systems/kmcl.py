"""KMCL: a TResNet under `encoder.` and a kernel mixture head.

mahdihosseini/KMCL Kmcl_Class.py holds the reduction of an anisotropic head as `downsampler` and the
three layers of the head under `kmm.`.
"""

from typing import Any

import numpy as np

from converters.rows import affine
from converters.systems import tresnet
from converters.systems.shapes import count_outputs, has, without
from converters.systems.system import Detection, System, Tensor, Tensors
from converters.table import Arrays, Row, Table, Transform, join
from mljax.backbones.tresnet import TResNet
from mljax.config import Part, Preprocessing
from mljax.data.readers import adp, chest_xray
from mljax.heads.kernel_mixture import KernelMixture
from mljax.models.classifier import Classifier

# What precedes the names of the backbone.
ENCODER = "encoder."

# Data sets with statistics of their own, by number of classes: (name, mean, std).
_DATASETS = {
    9: ("ADP", adp.MEAN, adp.STD),
    14: ("ChestX-ray14", chest_xray.MEAN, chest_xray.STD),
}
_IMAGENET = ("ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLASSIFIER = "the encoder's own classifier, which KMCL never trains nor uses; exported as zeros"


def matches(tensors: Tensors) -> bool:
    """Returns whether a TResNet's body stands under `encoder.`, beside layers of the head."""
    return has(tensors, f"{ENCODER}body.layer1.0.conv1.") and has(tensors, "kmm.", "downsampler.")


def detect(
    tensors: Tensors,
    name: str,
    *,
    stem_slope: float | None = None,
    block_slope: float | None = None,
) -> Detection:
    """Tells the variant, the covariance and the similarity."""
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    backbone, variant = tresnet.detect_backbone(without(ENCODER, tensors), name, slopes)
    num_classes = count_outputs(tensors, "kmm.pi", name)
    anisotropic = has(tensors, "downsampler.")
    kwargs: dict[str, Any] = {"covariance": "anisotropic" if anisotropic else "isotropic"}
    if has(tensors, "kmm.mean.", "kmm.var."):
        kwargs["similarity"] = _detect_similarity(tensors, num_classes, anisotropic, name)
    else:
        kwargs["asymmetric_only"] = True
    if anisotropic and (width := count_outputs(tensors, "downsampler", name, "reduction")) != 128:
        kwargs["reduced_features"] = width
    size = 224 if backbone.name == "tresnet_m" else 448
    dataset, mean, std = _DATASETS.get(num_classes, _IMAGENET)
    kernels = f"{kwargs['covariance']}, {kwargs.get('similarity', 'asymmetric loss only')}"
    return Detection(
        backbone=backbone,
        head=Part(name="kernel_mixture", kwargs=kwargs),
        num_classes=num_classes,
        preprocessing=Preprocessing(image_size=size, mean=mean, std=std),
        description=f"KMCL {variant}, kernel mixture head ({kernels}), {num_classes} classes",
        assumption=(
            f"{size} pixels, as KMCL's {variant}, unless given or in the file's name; mean and std "
            f"of {dataset}, as KMCL's networks of {num_classes} classes, unless given"
        ),
    )


def _detect_similarity(tensors: Tensors, num_classes: int, anisotropic: bool, name: str) -> str:
    """Returns the similarity, which shows in the number of variances."""
    variances = count_outputs(tensors, "kmm.var", name, "variances")
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


def table(model: Classifier, naming: str) -> Table:
    """Returns the table of the whole network."""
    body = tresnet.tresnet_table(model.backbone, naming, source=ENCODER)
    return join(body, kernel_mixture_table(model.head))


def kernel_mixture_table(head: KernelMixture, *, target: str = "head") -> Table:
    """Returns the table of a KMCL head.

    The encoder's own classifier is left out on import. The original loads no state dict without
    it, so an export has it, as zeros: no output depends on it.

    Args:
      head: tells which layers there are; it may be abstract.
      target: path of the head in the network.
    """
    reduction = head.down_sampler
    num_features = (reduction or head.pi).in_features
    fillers = {
        f"{ENCODER}head.fc.weight": (head.pi.out_features, num_features),
        f"{ENCODER}head.fc.bias": (head.pi.out_features,),
    }
    rows = tuple(Row((name,), (), _zeros(shape)) for name, shape in fillers.items())
    tables = [Table(rows, unused=dict.fromkeys(fillers, _CLASSIFIER))]
    if reduction is not None:
        tables.append(affine("downsampler", f"{target}.down_sampler", pointwise_1d))
    for layer in ("pi", "mean", "var"):
        if getattr(head, layer) is not None:
            # Both sides order the flat outputs of an anisotropic layer by dimension, then class.
            tables.append(affine(f"kmm.{layer}", f"{target}.{layer}"))
    return join(*tables)


def _zeros(shape: tuple[int, ...]) -> Transform:
    def to_torch() -> Arrays:
        return (np.zeros(shape, np.float32),)

    return Transform("zeros", lambda _: (), to_torch)


# A 1-D convolution over a single position, which is a linear layer here.
pointwise_1d = Transform("pointwise_1d", lambda w: (w[:, :, 0].T,), lambda k: (k.T[:, :, None],))


def logits(weights: dict[str, Tensor], images: Tensor, model: Classifier) -> Tensor:
    """Returns torch's logits."""
    from converters.reference.kmcl import kernel_mixture_logits

    body = {name.removeprefix(ENCODER): tensor for name, tensor in weights.items()}
    features = tresnet.reference_features(body, images, model.backbone)
    return kernel_mixture_logits(weights, features)


SYSTEM = System(
    name="KMCL",
    networks="TResNet with the kernel mixture head of KMCL",
    matches=matches,
    detect=detect,
    arguments=tresnet.SLOPES,
    pairs=((TResNet, KernelMixture),),
    table=table,
    logits=logits,
)
