"""Checkpoints that describe themselves and are verified when they are read.

Two kinds of folder, alike inside:

    <name>/
      model/        orbax: {"params", "stats"}, flat dicts by dotted path
      training/     orbax: the rest of the train state; only in a run's own checkpoints
      model.json    network, class names, preprocessing
      recipe.json   the resolved recipe, where there was one
      README.md     the model card
      manifest.json the SHA-256 of every other file and of its own list, written last

A folder without a manifest is an interrupted save. One whose files differ from it is damaged.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mljax.config.schema import Config, Preprocessing, from_json, to_json
from mljax.models.classifier import Classifier, ModelSpec, abstract_model, merge_model, split_model

MANIFEST = "manifest.json"
# Ends the name of a file or folder that is still being written.
INCOMPLETE = ".incomplete"
FORMAT = 1


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete, or whose files are not the ones that were saved."""


def save_model(
    path: str | Path, model: Classifier, *, recipe: Config | None = None, card: str = ""
) -> Path:
    """Writes a network as a checkpoint folder; the folder appears complete or not at all.

    Args:
      path: the folder to make.
      model: the network, with its `class_names` and `preprocessing`.
      recipe: what it was trained by.
      card: Markdown for people; a short one is made if empty.

    Raises:
      FileExistsError: if `path` exists.
      ValueError: for a path with `[` in it.
    """
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
        _, params, stats = split_model(model)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arrays = {"params": params, "stats": stats}
            checkpointer.save(temporary / "model", args=ocp.args.StandardSave(arrays))
        if jax.process_index() == 0:
            describe(temporary, model, recipe, card)
            seal(temporary)
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    wait_for_all("model renamed")
    return path


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


def load_model(path: str | Path) -> Classifier:
    """Returns the network of a checkpoint in eval mode, with class names and preprocessing.

    Args:
      path: a checkpoint folder, or the workdir of a run: then its best network, or if nothing was
        evaluated yet, that of its latest checkpoint.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      DamagedCheckpointError: if a file is not the one that was saved; it is named.
    """
    path = find_model(path)
    verify(path)
    description = read_description(path)
    model = abstract_model(description.spec)
    graph, params, stats = split_model(model)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        target = jax.tree.map(_on_one_device, {"params": params, "stats": stats})
        arrays = checkpointer.restore(path / "model", args=ocp.args.StandardRestore(target))
    model = merge_model(graph, arrays["params"], arrays["stats"])
    model.class_names = description.class_names
    model.preprocessing = description.preprocessing
    return model


def _on_one_device(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `model.json`."""

    format: int = FORMAT
    spec: ModelSpec
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    versions: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_description(path: str | Path) -> Description:
    """Returns what a checkpoint says of its network.

    Raises:
      DamagedCheckpointError: if `model.json` is not one that this version reads.
    """
    file = Path(path) / "model.json"
    try:
        description = from_json(Description, file.read_text(), str(file))
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{file} cannot be read: {error}") from error
    if description.format != FORMAT:
        raise DamagedCheckpointError(
            f"{file} has format {description.format}; this version of mljax reads {FORMAT}"
        )
    return description


def read_recipe(path: str | Path) -> Config | None:
    """Returns the recipe stored in a checkpoint, or None if it has none (a converted one)."""
    file = find_model(path) / "recipe.json"
    return from_json(Config, file.read_text(), str(file)) if file.is_file() else None


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


def sealed(folder: Path) -> list[Path]:
    """Returns the finished checkpoints in `folder`, by step."""
    found = [p for p in folder.glob("*") if p.name.isdigit() and (p / MANIFEST).is_file()]
    return sorted(found, key=lambda p: int(p.name))


def describe(folder: Path, model: Classifier, recipe: Config | None, card: str = "") -> None:
    """Writes `model.json`, `recipe.json` and the model card."""
    description = Description(
        spec=model.spec,
        class_names=model.class_names,
        preprocessing=model.preprocessing,
        versions={name: importlib.metadata.version(name) for name in ("mljax", "jax", "flax")},
    )
    (folder / "model.json").write_text(to_json(description) + "\n")
    if recipe is not None:
        (folder / "recipe.json").write_text(to_json(recipe) + "\n")
    (folder / "README.md").write_text(card or _card(description))


def _card(description: Description) -> str:
    spec, names = description.spec, description.class_names
    classes = f"{spec.num_classes}" + (f" ({', '.join(names)})" if names else "")
    return "\n".join(
        [
            f"# {spec.backbone.name} with a {spec.head.name} head",
            "",
            f"- classes: {classes}",
            f"- preprocessing: {description.preprocessing}",
            "- in Python: `mljax.load_model(folder)`",
            "- on images: `python -m mljax.predict --checkpoint FOLDER IMAGE`",
            "",
        ]
    )


def seal(folder: Path) -> None:
    """Writes the manifest: the SHA-256 of every file in `folder`."""
    hashes = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder)}
    temporary = folder / (MANIFEST + INCOMPLETE)
    temporary.write_text(json.dumps({"sha256": hashes, "list": _digest(hashes)}, indent=1) + "\n")
    temporary.rename(folder / MANIFEST)


def verify(folder: Path) -> None:
    """Checks every file of a checkpoint against its manifest.

    Raises:
      DamagedCheckpointError: naming the files that are missing, new or changed.
    """
    expected = _read_manifest(folder)
    found = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder)}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} was added" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has changed"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if problems:
        raise DamagedCheckpointError(
            f"checkpoint {folder} is damaged: {'; '.join(sorted(problems))}. Use another copy"
        )


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["list"] == _digest(manifest["sha256"]):
            return manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DamagedCheckpointError(
        f"checkpoint {folder} is damaged: {MANIFEST} is missing or has changed. Use another copy"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def _digest(hashes: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wait_for_all(name: str) -> None:
    """Waits until every process of a run has come to the point `name`."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
