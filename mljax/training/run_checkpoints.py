"""The checkpoints of a run: saved in the background, sealed, thinned out, and resumed from."""

import dataclasses
import itertools
import json
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mljax.checkpoints.checkpoint import (
    check_path,
    check_version,
    read_description,
    save_model,
    write_description,
)
from mljax.checkpoints.manifest import (
    INCOMPLETE,
    MANIFEST,
    DamagedCheckpointError,
    seal,
    sealed,
    verify,
)
from mljax.config.load import from_json, to_json
from mljax.config.schema import Config
from mljax.devices.processes import wait_for_all
from mljax.models.classifier import Classifier
from mljax.training.progress import Progress
from mljax.training.state import TrainState

# Ends the name of a folder that a new one takes the place of.
REPLACED = ".replaced"


class RunCheckpoints:
    """The folder `checkpoints` of a workdir: one checkpoint folder a step, the newest few kept.

    Opening it removes what an interrupted save left, and sets damaged checkpoints aside as
    `damaged-<step>`, with a warning that names them.

    Args:
      folder: is made.
      model: described in each checkpoint.
      config: stored in each checkpoint.
      keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, model: Classifier, config: Config, *, keep: int) -> None:
        self._folder = folder.absolute()
        self._model = model
        self._config = config
        self._keep = keep
        self._saving: Future[None] | None = None
        check_path(self._folder)
        if jax.process_index() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
        self.tidy(self._folder)
        handler = ocp.CompositeCheckpointHandler(
            model=ocp.StandardCheckpointHandler(),
            training=ocp.StandardCheckpointHandler(),
            progress=ocp.JsonCheckpointHandler(),
        )
        self._checkpointer = ocp.AsyncCheckpointer(handler)
        self._background = ThreadPoolExecutor(1, "checkpoint")

    def tidy(self, folder: Path) -> list[Path]:
        """Removes what an interrupted save left, sets damaged checkpoints aside, returns the good.

        All processes must call it together.
        """
        if jax.process_index() == 0 and folder.is_dir():
            _tidy(folder)
        wait_for_all(f"{folder.name} tidied")
        return sealed(folder)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Starts saving `state`, after any save still under way.

        Args:
          state: may be donated to the next step at once.
          progress: how far the run has come.
        """
        self.wait()
        path = self._folder / str(int(state.step))
        items = {
            **{name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()},
            "progress": ocp.args.JsonSave(json.loads(to_json(progress))),
        }
        # It exists if an evaluation was made up for, which its checkpoint lacks.
        _set_aside(path)
        self._checkpointer.save(path, args=ocp.args.Composite(**items))
        self._saving = self._background.submit(self._complete, path)

    def restore(self, state: TrainState) -> tuple[TrainState, Progress] | None:
        """Returns the newest state and its progress, or None if there is no checkpoint.

        Args:
          state: gives shapes and shardings. If there is a checkpoint, its arrays are freed, so that
            the restored ones find room.

        Raises:
          ValueError: if the checkpoint is of another network, optimizer or other classes.
        """
        steps = sealed(self._folder)
        if not steps:
            return None
        self._check_fits(steps[-1], state)
        targets = jax.tree.map(ocp.utils.to_shape_dtype_struct, _items(state))
        items = {
            **{name: ocp.args.StandardRestore(tree) for name, tree in targets.items()},
            "progress": ocp.args.JsonRestore(),
        }
        fields = _without_model(state)
        jax.tree.map(lambda array: array.delete(), state)
        restored = self._checkpointer.restore(steps[-1], args=ocp.args.Composite(**items))
        paths, structure = jax.tree_util.tree_flatten_with_path(fields)
        leaves = [restored["training"][_name(path)] for path, _ in paths]
        fields = jax.tree.unflatten(structure, leaves)
        arrays = restored["model"]
        text = json.dumps(restored["progress"])
        progress = from_json(Progress, text, f"{steps[-1]}/progress")
        return TrainState(params=arrays["params"], statistics=arrays["stats"], **fields), progress

    def wait(self) -> None:
        """Waits for the save under way, if any; raises what went wrong in it."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        """Waits, and ends the background work; raises as `wait`."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._checkpointer.close()

    def _check_fits(self, path: Path, state: TrainState) -> None:
        check_version(path)
        names, expected = read_description(path).class_names, self._model.class_names
        if names != expected:
            pairs = itertools.zip_longest(names or (), expected or ())
            differing = [f"{a} / {b}" for a, b in pairs if a != b]
            raise ValueError(
                f"checkpoint {path} is for other classes than the data has, or in another order: "
                f"{len(differing)} differ, such as {', '.join(differing[:3])}. Restore the data, "
                "or start anew in another workdir"
            )
        metadata = self._checkpointer.metadata(path).item_metadata
        assert metadata is not None
        stored = _shapes({name: metadata[name].tree for name in _items(state)})
        wanted = _shapes(_items(state))
        differences = [
            f"{name}: expected {wanted.get(name, 'nothing')}, got {stored.get(name, 'nothing')}"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name)
        ]
        if differences:
            listed = "\n  ".join(differences[:10])
            raise ValueError(
                f"checkpoint {path} does not fit the config ({len(differences)} differences)\n"
                f"  {listed}\nGo on with the config in {path / 'config.json'}, or start anew in "
                "another workdir"
            )

    def _complete(self, path: Path) -> None:
        """Describes and seals the checkpoint at `path` when it is written; removes the oldest."""
        self._checkpointer.wait_until_finished()
        if jax.process_index() != 0:
            return
        write_description(path, self._model, self._config)
        seal(path)
        shutil.rmtree(path.with_name(path.name + REPLACED), ignore_errors=True)
        for old in sealed(self._folder)[: -self._keep]:
            # Without its manifest it counts as unfinished, should this be interrupted.
            (old / MANIFEST).unlink()
            shutil.rmtree(old)


def save_only(path: Path, model: Classifier, *, config: Config, card: str) -> None:
    """Writes a network as a checkpoint folder and removes the others beside it.

    An interruption leaves a whole checkpoint, if there was one: `RunCheckpoints.tidy` finds it.

    Args:
      path: named by the step; one that is there is replaced.
      model: as for `save_model`, like the rest.
      config: what it was trained by.
      card: Markdown for people.
    """
    before = sealed(path.parent)
    aside = _set_aside(path)
    save_model(path, model, config=config, card=card)
    if jax.process_index() == 0:
        for old in [p for p in before if p != path] + [aside]:
            shutil.rmtree(old, ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """Renames a checkpoint, if there is one, to what is returned; `_tidy` undoes it if need be."""
    aside = path.with_name(path.name + REPLACED)
    if jax.process_index() == 0 and path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    wait_for_all("checkpoint set aside")
    return aside


def _without_model(state: TrainState) -> dict[str, Any]:
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if name not in ("params", "statistics")}


def _items(state: TrainState) -> dict[str, dict[str, Any]]:
    """Returns what orbax stores of a state: one tree a folder."""
    return {
        "model": {"params": state.params, "stats": state.statistics},
        "training": _training(state),
    }


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): tuple(leaf.shape) for path, leaf in leaves}


def _training(state: TrainState) -> dict[str, jax.Array]:
    """Returns the train state without the network, as one flat dict by dotted path."""
    leaves = jax.tree_util.tree_leaves_with_path(_without_model(state))
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _tidy(folder: Path) -> None:
    for path in list(folder.iterdir()):
        unsealed = path.name.isdigit() and not (path / MANIFEST).is_file()
        if unsealed or path.suffix == INCOMPLETE or ocp.utils.TMP_DIR_SUFFIX in path.name:
            shutil.rmtree(path)
    for aside in list(folder.glob(f"*{REPLACED}")):
        if aside.with_suffix("").exists():
            shutil.rmtree(aside)
        else:
            aside.rename(aside.with_suffix(""))
    for path in reversed(found := sealed(folder)):
        try:
            verify(path)
            return
        except DamagedCheckpointError as error:
            aside = _unused(path.with_name(f"damaged-{path.name}"))
            path.rename(aside)
            before = ", and the one before is used" if path != found[0] else ""
            warnings.warn(f"{error}; it is now at {aside}{before}", stacklevel=2)


def _unused(path: Path) -> Path:
    """Returns `path`, or the first of `path-2`, `path-3`, ... that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())
