"""Models from torch checkpoints, and torch state dicts from models.

Nothing here is about one system: `converters.systems` tells, reads and writes each.
"""

import inspect
import os
import typing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from converters.files.class_names import read_class_names
from converters.files.read_array import read_array
from converters.files.read_torch import TorchFile, read_torch
from converters.networks import find_system, take_network
from converters.systems import SYSTEMS
from converters.systems.system import Detection, System
from converters.table import ImportReport, Table, export_tensors, import_tensors
from mljax.config.part import resolve
from mljax.config.schema import Preprocessing
from mljax.config.signatures import bind, suggest
from mljax.data.files.names import check_class_names
from mljax.data.readers.open_images import class_names_of
from mljax.models.classifier import Classifier, ModelSpec, abstract_model


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted checkpoint, and how it came about.

    Attributes:
      model: the network in eval mode, with its class names and preprocessing.
      file: what was read.
      system: whose network it is.
      detection: what it was found to be.
      report: what the import did.
    """

    model: Classifier
    file: TorchFile
    system: System
    detection: Detection
    report: ImportReport


def from_torch(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    key: str | None = None,
    prefix: str | None = None,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    class_descriptions: str | os.PathLike | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    **arguments: Any,  # noqa: ANN401
) -> Classifier:
    """Returns the network of a torch checkpoint, in eval mode.

    System, variant, head and number of classes are told from names and shapes. The arguments are
    what the file cannot tell.

    Args:
      source: path of a `.pth`, `.pth.tar`, `.ckpt` or `.safetensors` file, or a dict of arrays.
      key: the container's entry that holds the weights, such as `state_dict_ema`; None takes the
        usual one. Dots lead to one inside another, such as `ema.module`.
      prefix: what precedes the names of the network in that entry, such as `student.`; None finds
        it. Tensors outside are left out.
      class_names: in the order of the logits, or the path of a UTF-8 file with one a line; None
        takes the torch file's, if it has them.
      class_descriptions: path of OpenImages' `oidv6-class-descriptions.csv`, which turns class
        names that are MIDs (`/m/...`) into display names.
      image_size: side of the input in pixels; None takes it from a file name such as
        `..._448.pth`, else the system's.
      mean: subtracted from images in [0, 1]; None takes the system's.
      std: divides them after that; None takes the system's.
      **arguments: those of the system that matches, as `converters.SYSTEMS[...].arguments` and
        `python -m converters.convert --help` list them. An array may be given as the path of a
        `.npy` or torch file that holds it.

    A file with averaged weights beside the plain ones gives the plain ones and a warning, unless
    `key` or `prefix` chooses. One without classifier gives a network with the head `pooled`, which
    `model.init_from` takes.

    Raises:
      ValueError: for a file that cannot be read, is of no known system, or does not fit it, or an
        argument that its system does not take.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    conversion = convert_checkpoint(
        source,
        arguments,
        key=key,
        prefix=prefix,
        class_names=class_names,
        class_descriptions=class_descriptions,
        image_size=image_size,
        mean=mean,
        std=std,
    )
    file = conversion.file
    if file.alternatives and key is None and prefix is None:
        # The command's option has the name of the argument here.
        listed = ", ".join(file.alternatives)
        warnings.warn(f"{file.name}: holds also {listed}; they are not read", stacklevel=2)
    return conversion.model


def convert_checkpoint(
    source: str | os.PathLike | Mapping[str, Any],
    arguments: Mapping[str, Any],
    *,
    key: str | None,
    prefix: str | None,
    class_names: Sequence[str] | str | os.PathLike | None,
    class_descriptions: str | os.PathLike | None,
    image_size: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
) -> Conversion:
    """Returns the network of a torch checkpoint with all that a report needs; see `from_torch`."""
    file = take_network(read_torch(source, key=key, prefix=prefix))
    system, detection = detect(file.tensors, file.name, **arguments)
    model, report = build_model(file, system, detection)
    model.class_names = choose_class_names(
        file, model.spec.num_classes, class_names, class_descriptions
    )
    model.preprocessing = choose_preprocessing(file, detection, image_size, mean, std)
    model.naming = detection.naming
    return Conversion(model=model, file=file, system=system, detection=detection, report=report)


def to_torch(model: Classifier, *, naming: str | None = None) -> dict[str, Any]:
    """Returns the state dict that the original code loads strictly, in its order.

    Values are tensors, as `load_state_dict` takes them, where torch is installed, else arrays.

    Args:
      model: see `to_numpy`.
      naming: likewise.

    Raises:
      ValueError: for a network without a table, or another naming.
    """
    arrays = to_numpy(model, naming=naming)
    try:
        import torch
    except ImportError:
        return arrays
    return {name: torch.tensor(array) for name, array in arrays.items()}


def to_numpy(model: Classifier, *, naming: str | None = None) -> dict[str, np.ndarray]:
    """Returns the state dict that the original code loads strictly, in its order, as arrays.

    Counters of batches are left out; all codes do without them. So are the levels that training
    put around the network's names.

    Args:
      model: a network for which there is a table.
      naming: whose names, among the `namings` of the systems that write such a network; None takes
        those that the network came with.

    Raises:
      ValueError: for a network without a table, or another naming.
    """
    return export_tensors(find_table(model, naming), model)


def detect(
    tensors: Mapping[str, np.ndarray],
    name: str = "the source",
    **arguments: Any,  # noqa: ANN401
) -> tuple[System, Detection]:
    """Tells system, variant and their arguments from names and shapes.

    A single missing tensor does not change the answer; the import then reports it.

    Args:
      tensors: a torch state dict without wrapper levels in its names.
      name: of the source, for messages.
      **arguments: what the file cannot tell.

    Raises:
      ValueError: for a state dict of no known system or one that is cut down, or an argument that
        the system does not take.
    """
    system = find_system(tensors, name)
    parameters = inspect.signature(system.detect).parameters
    for argument, value in arguments.items():
        annotation = parameters[argument].annotation if argument in parameters else None
        is_path = isinstance(value, (str, os.PathLike))
        if is_path and np.ndarray in (annotation, *typing.get_args(annotation)):
            arguments[argument] = read_array(Path(value))
    bind(system.detect, arguments, f"{name}: {system.name}")
    return system, system.detect(tensors, name, **arguments)


def find_table(model: Classifier, naming: str | None = None) -> Table:
    """Returns the table of a network, which may be abstract.

    Args:
      model: the network.
      naming: see `to_numpy`. One that came with another head, which was replaced since, is the
        original one.

    Raises:
      ValueError: for a network that no system writes, or not by these names.
    """
    pair = (type(model.backbone), type(model.head))
    fitting = [system for system in SYSTEMS.values() if pair in system.pairs]
    if not fitting:
        known = [pair for system in SYSTEMS.values() for pair in system.pairs]
        listed = ", ".join(dict.fromkeys(map(_describe_pair, known)))
        raise ValueError(
            f"there is no conversion table for {_describe_pair(pair)}; there are tables for "
            f"{listed}"
        )
    if naming is None:
        known = [name for system in fitting for name in system.namings]
        naming = next((n for n in (model.naming, "original") if n in known), known[0])
    for system in fitting:
        if naming in system.namings:
            return system.table(model, naming)
    namings = [name for system in fitting for name in system.namings]
    raise ValueError(
        f"{_describe_pair(pair)} has {' or '.join(namings)} names, got naming={naming!r}"
        f"{suggest(naming, namings)}"
    )


def _describe_pair(pair: tuple[type, type]) -> str:
    return " with ".join(kind.__name__ for kind in pair)


def build_model(
    file: TorchFile, system: System, detection: Detection
) -> tuple[Classifier, ImportReport]:
    """Returns the detected network with the file's weights, in eval mode, and what was done.

    Raises:
      ValueError: if there is no such head, or the file does not fit the network.
    """
    try:
        resolve(detection.head.name, "head")
    except ValueError as error:
        raise ValueError(
            f"{file.name}: is a {detection.description}, which has no place here yet: {error}"
        ) from error
    # Abstract: the arrays come from the file, so nothing is initialized or compiled.
    model = abstract_model(
        ModelSpec(
            backbone=detection.backbone, head=detection.head, num_classes=detection.num_classes
        )
    )
    table = system.table(model, detection.naming)
    assert table.kept.keys() == detection.arrays.keys(), "no file tells these variables"
    report = import_tensors(table, file.tensors, model, file.name)
    paths = {".".join(map(str, path)): v for path, v in nnx.to_flat_state(nnx.state(model))}
    for path, array in detection.arrays.items():
        paths[path].set_value(jnp.array(array, paths[path].dtype))
    return model, report


def choose_class_names(
    file: TorchFile,
    num_classes: int,
    class_names: Sequence[str] | str | os.PathLike | None,
    class_descriptions: str | os.PathLike | None = None,
) -> tuple[str, ...] | None:
    """Returns the given class names, else the file's, else None; with descriptions, what they say.

    Raises:
      ValueError: if there is not one name per class, or one that has no description.
    """
    if class_names is None and file.names_problem and num_classes:
        raise ValueError(f"{file.names_problem}; give them by class_names, one per class")
    if isinstance(class_names, (str, os.PathLike)):
        source, names = str(class_names), read_class_names(Path(class_names))
    elif class_names is not None:
        source, names = file.name, check_class_names(class_names, "class_names")
    else:
        # Those of a file without classifier are of what was cut off.
        source, names = file.name, file.class_names if num_classes else None
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"{source}: {len(names)} class names for {num_classes} classes; give one name per "
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
    step; an identifier, as in `ema-model_ID_640.ckpt`, is random.
    """
    stem = Path(name).stem
    if stem.startswith("model-"):
        return None
    before, _, after = stem.partition("_ID_")
    stem = f"{before} {after.lstrip('0123456789')}"
    numbers = "".join(c if c.isdecimal() else " " for c in stem).split()
    return next((int(n) for n in numbers if 128 <= int(n) <= 1024 and int(n) % 32 == 0), None)
