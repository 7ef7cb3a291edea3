"""Checkpoints that describe themselves and are verified when they are read.

Two kinds of folder, alike inside:

    <name>/
      model/        orbax: {"params", "stats"}, flat dicts by dotted path; stats are all arrays
                    that are not trained
      training/     orbax: the rest of the train state; only in a run's own checkpoints
      model.json    network, class names, preprocessing
      config.json   the resolved config, where there was one
      thresholds.json  where they were calibrated; the only file that may change later
      README.md     the model card
      manifest.json the SHA-256 of every other file and of its own list, written last

A folder without a manifest is no finished checkpoint. One whose files differ from it is damaged;
files that it does not list are ignored.
"""

import dataclasses
import importlib.metadata
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mljax.checkpoints.card import make_card
from mljax.checkpoints.full_disk import full_disk_as_one_error
from mljax.checkpoints.manifest import (
    INCOMPLETE,
    MANIFEST,
    DamagedCheckpointError,
    is_listed,
    seal,
    sealed,
    verify,
    write_listed,
)
from mljax.config.load import from_json, to_json
from mljax.config.part import use_plugins
from mljax.config.schema import Config, Preprocessing
from mljax.config.text_files import write_text
from mljax.devices.processes import wait_for_all
from mljax.models import folding
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, ModelSpec, abstract_model

FORMAT = 1
_THRESHOLDS = "thresholds.json"


def save_model(
    path: str | Path,
    model: Classifier,
    *,
    config: Config | None = None,
    card: str = "",
    step: int | None = None,
) -> Path:
    """Writes a network as a checkpoint folder; the folder appears complete or not at all.

    Args:
      path: the folder to make.
      model: the network, with its `class_names` and `preprocessing`.
      config: what it was trained by.
      card: Markdown for people; a short one is made if empty.
      step: of a run, which the folder is named by.

    Raises:
      FileExistsError: if `path` exists.
      ValueError: for a path with `[` in it, or a folded network.
    """
    if model.is_folded:
        raise ValueError(f"{path}: a folded network has lost its parameters; save the one before")
    path = Path(path).absolute()
    check_path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; name a new folder or remove it")
    temporary = path.with_name(path.name + INCOMPLETE)
    if jax.process_index() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    wait_for_all("model folder")
    try:
        _, params, statistics = split_model(model)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arrays = {"params": params, "stats": statistics}
            with full_disk_as_one_error(path):
                checkpointer.save(temporary / "model", args=ocp.args.StandardSave(arrays))
        if jax.process_index() == 0:
            write_description(temporary, model, config, card)
            seal(temporary, step=step)
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    wait_for_all("model renamed")
    return path


def load_model(path: str | Path, *, plugins: Sequence[str] = (), fold: bool = False) -> Classifier:
    """Returns the network of a checkpoint in eval mode, with class names and preprocessing.

    Args:
      path: a checkpoint folder, or the workdir of a run: then its best network, or if nothing was
        evaluated yet, that of its latest checkpoint.
      plugins: modules to import first, because the network is made of their parts. No module is
        imported because the checkpoint names it.
      fold: compute once what no image changes, for inference; see `mljax.models.folding`.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: for a network of parts in a plug-in that is not loaded.
      DamagedCheckpointError: if a file is not the one that was saved; it is named.
    """
    path = find_model(path)
    verify(path)
    use_plugins(plugins)
    description = read_description(path)
    model = abstract_model(description.spec)
    graph, params, statistics = split_model(model)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        target = jax.tree.map(_on_one_device, {"params": params, "stats": statistics})
        metadata = checkpointer.metadata(path / "model").item_metadata
        assert metadata is not None
        _check_kinds(path, array_kinds(metadata.tree), array_kinds(target))
        arrays = checkpointer.restore(path / "model", args=ocp.args.StandardRestore(target))
    model = merge_model(graph, arrays["params"], arrays["stats"])
    model.class_names = description.class_names
    model.preprocessing = description.preprocessing
    model.naming = description.naming
    if is_listed(path, _THRESHOLDS):
        model.thresholds = _read_thresholds(path / _THRESHOLDS, model.spec.num_classes)
    return folding.fold(model) if fold else model


def array_kinds(tree: Any) -> dict[str, str]:  # noqa: ANN401
    """Returns the shape and type of each array by path, such as `(3, 4) float32`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        dotted_path(path): f"{tuple(leaf.shape)} {np.dtype(leaf.dtype)}" for path, leaf in leaves
    }


def dotted_path(path: tuple[Any, ...]) -> str:
    """Returns where an array lies in a tree, such as `params.head.bias`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _check_kinds(path: Path, stored: dict[str, str], wanted: dict[str, str]) -> None:
    # Orbax would convert to another type without a word.
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise DamagedCheckpointError(
                f"{path} does not hold the network of its model.json: {name}: expected "
                f"{wanted.get(name, 'nothing')}, got {stored.get(name, 'nothing')}"
            )


def _on_one_device(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The content of `thresholds.json`.

    Attributes:
      logits: above which each class is predicted, in the order of the logits.
      source: on which images they were chosen, in words.
    """

    logits: tuple[float, ...]
    source: str = ""


def save_thresholds(path: str | Path, thresholds: Thresholds) -> Path:
    """Puts thresholds into a checkpoint, in the place of those that it has; returns its folder.

    Args:
      path: as for `load_model`.
      thresholds: finite, one a class.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: for another number of thresholds than classes, or one that is not finite.
      OSError: if the folder cannot be written.
    """
    folder = find_model(path)
    _check_thresholds(thresholds, read_description(folder).spec.num_classes, "thresholds")
    write_listed(folder, _THRESHOLDS, to_json(thresholds) + "\n")
    return folder


def _read_thresholds(file: Path, num_classes: int) -> tuple[float, ...]:
    try:
        thresholds = from_json(Thresholds, file.read_text("utf-8"), str(file))
        _check_thresholds(thresholds, num_classes, str(file))
    except ValueError as error:
        raise DamagedCheckpointError(f"{file} cannot be read: {error}") from error
    return thresholds.logits


def _check_thresholds(thresholds: Thresholds, num_classes: int, what: str) -> None:
    count, finite = len(thresholds.logits), all(map(math.isfinite, thresholds.logits))
    if count != num_classes or not finite:
        raise ValueError(
            f"{what}: got {count}{'' if finite else ', not all finite'}, expected a finite logit "
            f"for each of {num_classes} classes"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `model.json`; see `Classifier` for what it says."""

    format: int = FORMAT
    spec: ModelSpec
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    naming: str | None = None
    versions: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_description(path: str | Path) -> Description:
    """Returns what a checkpoint says of its network.

    Raises:
      DamagedCheckpointError: if `model.json` is not one that this version reads.
      OSError: if it is there but cannot be read.
    """
    file = Path(path) / "model.json"
    try:
        description = from_json(Description, file.read_text("utf-8"), str(file))
    except (FileNotFoundError, ValueError) as error:
        raise DamagedCheckpointError(f"{file} cannot be read: {error}") from error
    if description.format != FORMAT:
        raise DamagedCheckpointError(
            f"{file} has format {description.format}; this version of mljax reads {FORMAT}"
        )
    return description


def read_config(path: str | Path) -> Config | None:
    """Returns the config stored in a checkpoint, or None if it has none (a converted one).

    Raises:
      ValueError: for one that an older version wrote.
    """
    folder = find_model(path)
    check_version(folder)
    file = folder / "config.json"
    return from_json(Config, file.read_text("utf-8"), str(file)) if file.is_file() else None


def check_version(folder: Path) -> None:
    """Refuses a checkpoint whose config an older version wrote.

    Raises:
      ValueError: saying what to do.
    """
    if (folder / "recipe.json").is_file():
        raise ValueError(
            f"{folder} was trained by mljax 0.1, whose recipes this version does not read; run "
            "`python -m converters.upgrade` on its workdir, or on this folder, first"
        )


def find_model(path: str | Path) -> Path:
    """Returns the checkpoint folder that `path` means; see `load_model`.

    Raises:
      FileNotFoundError: if there is none.
    """
    path = Path(path).absolute()
    if (path / "model.json").is_file() or (path / MANIFEST).is_file():
        return path
    found = sealed(path / "best") or sealed(path / "checkpoints")
    if not found:
        raise FileNotFoundError(
            f"no checkpoint at {path}: expected a folder with model.json, or the workdir of a run"
        )
    return found[-1]


def write_description(
    folder: Path, model: Classifier, config: Config | None, card: str = ""
) -> None:
    """Writes `model.json`, `config.json`, `thresholds.json` and the model card."""
    description = Description(
        spec=model.spec,
        class_names=model.class_names,
        preprocessing=model.preprocessing,
        naming=model.naming,
        versions={name: _version(name) for name in ("mljax", "jax", "flax")},
    )
    write_text(folder / "model.json", to_json(description) + "\n")
    if config is not None:
        write_text(folder / "config.json", to_json(config) + "\n")
    if model.thresholds is not None:
        write_text(folder / _THRESHOLDS, to_json(Thresholds(logits=model.thresholds)) + "\n")
    write_text(folder / "README.md", card or make_card(description))


def _version(package: str) -> str:
    """Returns a package's version; a clone that was not installed has none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def check_path(path: Path) -> None:
    """Refuses a path that orbax takes for a pattern: what it writes there cannot be read again.

    Raises:
      ValueError: naming the path.
    """
    if "[" in str(path.absolute()):
        raise ValueError(
            f"{path.absolute()}: checkpoints cannot lie under a path with `[` in it, which orbax "
            "reads as a pattern; choose another name"
        )
