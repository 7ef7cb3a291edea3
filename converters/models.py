"""Models from torch checkpoints, and torch state dicts from models."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from converters.detect import Detection, detect
from converters.kernel_mixture import ENCODER, kernel_mixture_table
from converters.ml_decoder import ml_decoder_table
from converters.read_torch import TorchFile, read_torch
from converters.resnet import resnet_table
from converters.table import ImportReport, Table, export_tensors, import_tensors, join
from converters.tresnet import Naming, linear_head_table, tresnet_table
from mljax.backbones.resnet import ResNet
from mljax.backbones.tresnet import TResNet
from mljax.config.schema import Part, Preprocessing
from mljax.data.readers.open_images import class_names_of
from mljax.heads import HEADS
from mljax.heads.kernel_mixture import KernelMixture
from mljax.heads.linear import Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.models.classifier import Classifier, ModelSpec, abstract_model

BACKBONE_TABLES: dict[type[nnx.Module], Callable[..., Table]] = {
    TResNet: tresnet_table,
    ResNet: resnet_table,
}
HEAD_TABLES: dict[type[nnx.Module], Callable[..., Table]] = {
    Linear: linear_head_table,
    MLDecoder: ml_decoder_table,
    KernelMixture: kernel_mixture_table,
}


def from_torch(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    key: str | None = None,
    class_names: Sequence[str] | None = None,
    class_descriptions: str | os.PathLike | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    stem_slope: float | None = None,
    block_slope: float | None = None,
    word_vectors: np.ndarray | None = None,
) -> Classifier:
    """Returns the network of a torch checkpoint, in eval mode.

    System, variant, head and number of classes are told from names and shapes. The arguments are
    what the file cannot tell.

    Args:
      source: path of a `.pth`, `.pth.tar`, `.ckpt` or `.safetensors` file, or a dict of arrays.
      key: the container's entry that holds the weights, such as `state_dict_ema`; None takes the
        usual one.
      class_names: in the order of the logits; None takes the file's, if it has them.
      class_descriptions: path of OpenImages' `oidv6-class-descriptions.csv`, which turns class
        names that are MIDs (`/m/...`) into display names.
      image_size: side of the input in pixels; None takes it from a file name such as
        `..._448.pth`, else 224.
      mean: subtracted from images in [0, 1]; None takes the system's (TResNet: 0).
      std: divides them after that; None takes the system's (TResNet: 1).
      stem_slope: of the stem's leaky rectifier; None is 1e-2. The L_V2 of Alibaba-MIIL/TResNet
        (`stanford_cars_tresnet-l-v2_96_27.pth`) alone has 1e-6 here and in its blocks.
      block_slope: of the blocks' leaky rectifiers; None is 1e-3.
      word_vectors: `[k, w]` or `[w, k]`, of the classes of a zero-shot ML-Decoder head, which no
        file holds.

    Raises:
      ValueError: for a file that cannot be read, is of no known system, or does not fit it.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    file = read_torch(source, key=key)
    detection = detect(file.tensors, file.name)
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    model, _ = build_model(file, detection, slopes, word_vectors)
    model.class_names = choose_class_names(
        file, model.spec.num_classes, class_names, class_descriptions
    )
    model.preprocessing = choose_preprocessing(file, detection, image_size, mean, std)
    return model


def to_torch(model: Classifier, *, naming: Naming = "original") -> dict[str, np.ndarray]:
    """Returns the state dict that the original code loads strictly, in its order.

    Args:
      model: a network for which there is a table.
      naming: `original`, with the raw weights of in-place activated batch norm, or `timm`, with
        its gains; for a ResNet these are torchvision's names, and `supcon` SupContrast's. Counters
        of batches are left out; all codes do without them.

    Raises:
      ValueError: for a backbone or head without a table.
    """
    return export_tensors(find_table(model, naming, naming), model)


def find_table(model: Classifier, naming: Naming, head_naming: Naming) -> Table:
    """Returns the table of a network, which may be abstract.

    Raises:
      ValueError: for a backbone or head without a table.
    """
    for part, known in ((model.backbone, BACKBONE_TABLES), (model.head, HEAD_TABLES)):
        if type(part) not in known:
            raise ValueError(
                f"there is no conversion table for {type(part).__name__}; "
                f"there are tables for {', '.join(kind.__name__ for kind in known)}"
            )
    prefix = ENCODER if type(model.head) is KernelMixture else ""
    # A ResNet's classifier is `fc`, whatever stands there.
    place = {"source": "fc"} if type(model.backbone) is ResNet else {}
    return join(
        BACKBONE_TABLES[type(model.backbone)](model.backbone, naming, source=prefix),
        HEAD_TABLES[type(model.head)](model.head, head_naming, **place),
    )


def build_model(
    file: TorchFile,
    detection: Detection,
    slopes: Mapping[str, float | None],
    word_vectors: np.ndarray | None = None,
) -> tuple[Classifier, ImportReport]:
    """Returns the detected network with the file's weights, in eval mode, and what was done.

    Args:
      file: the weights.
      detection: what they are.
      slopes: arguments of the backbone that the file cannot tell; None is the backbone's default.
      word_vectors: `[k, w]`, for a zero-shot head.

    Raises:
      ValueError: if there is no table for the network, or the file does not fit it.
    """
    if detection.head.name not in HEADS:
        raise ValueError(
            f"{file.name}: is a {detection.description}; there is no conversion table for this "
            f"head yet, only for {', '.join(HEADS)}"
        )
    given = {name: value for name, value in slopes.items() if value is not None}
    backbone = Part(name=detection.backbone.name, kwargs={**detection.backbone.kwargs, **given})
    word_vectors = _oriented(word_vectors, detection, file.name)
    num_classes = detection.num_classes if word_vectors is None else len(word_vectors)
    # Abstract: the arrays come from the file, so nothing is initialized or compiled.
    model = abstract_model(
        ModelSpec(backbone=backbone, head=detection.head, num_classes=num_classes)
    )
    table = find_table(model, detection.naming, detection.head_naming)
    report = import_tensors(table, file.tensors, model, file.name)
    if word_vectors is not None:
        model.head.word_vectors.set_value(jnp.array(word_vectors, jnp.float32))
    return model, report


def _oriented(
    word_vectors: np.ndarray | None, detection: Detection, name: str
) -> np.ndarray | None:
    """Returns the word vectors `[k, w]`; those of the ML-Decoder release are `[w, k]`."""
    width = detection.head.kwargs.get("word_vector_size")
    if width is None and word_vectors is not None:
        raise ValueError(f"{name}: is a {detection.description}, which takes no word_vectors")
    shape = None if word_vectors is None else word_vectors.shape
    if width is not None and (shape is None or len(shape) != 2 or shape[1] != width):
        if word_vectors is not None and shape is not None and len(shape) == 2 and shape[0] == width:
            return word_vectors.T
        raise ValueError(
            f"{name}: is a {detection.description}, which needs word_vectors [classes, {width}], "
            f"got {shape}; they come with the data set, not with the weights"
        )
    return word_vectors


def choose_class_names(
    file: TorchFile,
    num_classes: int,
    class_names: Sequence[str] | None,
    class_descriptions: str | os.PathLike | None = None,
) -> tuple[str, ...] | None:
    """Returns the given class names, else the file's, else None; with descriptions, what they say.

    Raises:
      ValueError: if there is not one name per class, or one that has no description.
    """
    names = file.class_names if class_names is None else tuple(class_names)
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"{file.name}: {len(names)} class names for {num_classes} classes; give one name per "
            "class, in the order of the logits"
        )
    return names if class_descriptions is None else _described(names, class_descriptions, file.name)


def _described(
    names: Sequence[str] | None, path: str | os.PathLike, source: str
) -> tuple[str, ...]:
    """Returns the display names of classes that are named by their MIDs."""
    if names is None:
        raise ValueError(
            f"{source}: has no class names that {path} could describe; give the MIDs as class "
            "names, such as those in oidv6-classes-trainable.txt"
        )
    known = class_names_of(Path(path))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"{source}: {len(unknown)} of {len(names)} class names are no MIDs in {path}, such as "
            f"{unknown[0]!r}"
        )
    return tuple(known[name] for name in names)


def choose_preprocessing(
    file: TorchFile,
    detection: Detection,
    image_size: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
) -> Preprocessing:
    """Returns the system's preprocessing with what is given, or what the file's name tells.

    Raises:
      ValueError: for an image size below 1 or a std that is not positive.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if std is not None and min(std) <= 0:
        raise ValueError(f"std must be positive, got {std}")
    known = detection.preprocessing
    return Preprocessing(
        image_size=image_size or _size_in_name(file.name) or known.image_size,
        mean=mean or known.mean,
        std=std or known.std,
        resize=known.resize,
    )


def _size_in_name(name: str) -> int | None:
    """Returns the first number in a file's name that can be an image size: 448 in `x_448.pth`.

    Those in `model-10-320.ckpt`, as the original scripts name what they train, are an epoch and a
    step; the one in KMCL's `ema-model-asl-COCO_tresnet_m_ID_640.ckpt` is random.
    """
    stem = Path(name).stem
    if stem.startswith("model-"):
        return None
    before, _, after = stem.partition("_ID_")
    stem = f"{before} {after.lstrip('0123456789')}"
    numbers = "".join(c if c.isdecimal() else " " for c in stem).split()
    return next((int(n) for n in numbers if 128 <= int(n) <= 1024 and int(n) % 32 == 0), None)
