"""The checkpoints of a run: saved in the background, sealed, thinned out, and resumed from."""

import dataclasses
import itertools
import json
import os
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mljax.checkpoints.checkpoint import (
    array_kinds,
    check_path,
    check_version,
    dotted_path,
    read_description,
    save_model,
    write_description,
)
from mljax.checkpoints.full_disk import full_disk_as_one_error
from mljax.checkpoints.manifest import (
    INCOMPLETE,
    MANIFEST,
    DamagedCheckpointError,
    check_step,
    exists,
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
# Ends the name of a folder that is being removed.
REMOVED = ".removed"
# Begin the names of checkpoints that cannot be used.
DAMAGED, UNFINISHED = "damaged-", "unfinished-"


class RunCheckpoints:
    """The folder `checkpoints` of a workdir: one checkpoint folder a step, the newest few kept.

    A checkpoint is written under another name and gets its own when it is sealed. Opening the
    folder removes what an interrupted save left, and sets aside, with a warning that names them,
    damaged checkpoints as `damaged-<step>` and those without a manifest as `unfinished-<step>`.
    Files of others are left alone.

    Args:
      folder: is made.
      model: described in each checkpoint.
      config: stored in each checkpoint.
      keep: how many of the newest stay.

    Attributes:
      set_aside: the checkpoints that were, where they are now.
    """

    def __init__(self, folder: Path, model: Classifier, config: Config, *, keep: int) -> None:
        self._folder = folder.absolute()
        self._model = model
        self._config = config
        self._keep = keep
        self._saving: Future[None] | None = None
        self.set_aside: list[Path] = []
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

        Raises:
          OSError: for a checkpoint that cannot be read; it stays where it is.
        """
        if jax.process_index() == 0 and folder.is_dir():
            self.set_aside += _tidy(folder)
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
        if jax.process_index() == 0:
            _remove(_incomplete(path))
        wait_for_all("checkpoint begun")
        with full_disk_as_one_error(self._folder):
            self._checkpointer.save(_incomplete(path), args=ocp.args.Composite(**items))
        self._saving = self._background.submit(self._complete, path)

    def restore(self, state: TrainState) -> tuple[TrainState, Progress] | None:
        """Returns the newest state and its progress, or None if there is no checkpoint.

        Args:
          state: gives shapes and shardings. If there is a checkpoint, its arrays are freed, so that
            the restored ones find room.

        Raises:
          ValueError: if the checkpoint is of another network, optimizer or other classes, or if
            there are checkpoints of which none can be used.
        """
        steps = sealed(self._folder)
        if not steps:
            _check_none(self._folder)
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
        leaves = [restored["training"][dotted_path(path)] for path, _ in paths]
        fields = jax.tree.unflatten(structure, leaves)
        arrays = restored["model"]
        text = json.dumps(restored["progress"])
        progress = from_json(Progress, text, f"{steps[-1]}/progress")
        state = TrainState(params=arrays["params"], statistics=arrays["stats"], **fields)
        if int(state.step) != int(steps[-1].name):
            raise DamagedCheckpointError(
                f"checkpoint {steps[-1]} is damaged: it holds step {int(state.step)}, so the "
                "folder was renamed; name it by its step again"
            )
        return state, progress

    def wait(self) -> None:
        """Waits for the save under way, if any; raises what went wrong in it."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        with full_disk_as_one_error(self._folder):
            saving.result()

    def close(self) -> None:
        """Waits, and ends the background work; raises as `wait`."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            with full_disk_as_one_error(self._folder):
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
        stored = array_kinds({name: metadata[name].tree for name in _items(state)})
        wanted = array_kinds(_items(state))
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
        new, aside = _incomplete(path), path.with_name(path.name + REPLACED)
        write_description(new, self._model, self._config)
        seal(new, step=int(path.name))
        _remove(aside)
        if os.path.lexists(path):
            # An evaluation was made up for, which this checkpoint lacks.
            path.rename(aside)
        new.rename(path)
        _remove(aside)
        for old in sealed(self._folder)[: -self._keep]:
            # Under this name `_tidy` goes on with it, should this be interrupted.
            _remove(old.rename(old.with_name(old.name + REMOVED)))


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
    save_model(path, model, config=config, card=card, step=int(path.name))
    if jax.process_index() == 0:
        for old in [p for p in before if p != path]:
            _remove(old.rename(old.with_name(old.name + REMOVED)))
        _remove(aside)


def try_saving(folder: Path, model: Classifier, config: Config) -> None:
    """Writes a checkpoint without arrays, reads its description, and removes it again.

    What cannot be written so fails before the training, not after its first hour. All processes
    must call it together.

    Args:
      folder: of checkpoints; nothing stays there.
      model: is described.
      config: is stored.
    """
    trial = _incomplete(folder.absolute() / "trial")
    try:
        if jax.process_index() == 0:
            _remove(trial)
            trial.mkdir(parents=True)
        wait_for_all("trial begun")
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            nothing = ocp.args.StandardSave({"nothing": np.zeros(1, np.float32)})
            with full_disk_as_one_error(folder):
                checkpointer.save(trial / "model", args=nothing)
        if jax.process_index() == 0:
            write_description(trial, model, config)
            read_description(trial)
            seal(trial)
    finally:
        if jax.process_index() == 0:
            _remove(trial)
    wait_for_all("trial ended")


def _set_aside(path: Path) -> Path:
    """Renames a checkpoint, if there is one, to what is returned; `_tidy` undoes it if need be."""
    aside = path.with_name(path.name + REPLACED)
    if jax.process_index() == 0 and os.path.lexists(path):
        _remove(aside)
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


def _training(state: TrainState) -> dict[str, jax.Array]:
    """Returns the train state without the network, as one flat dict by dotted path."""
    leaves = jax.tree_util.tree_leaves_with_path(_without_model(state))
    return {dotted_path(path): leaf for path, leaf in leaves}


def _incomplete(path: Path) -> Path:
    return path.with_name(path.name + INCOMPLETE)


def _tidy(folder: Path) -> list[Path]:
    """Returns where the checkpoints that cannot be used are now."""
    set_aside = []
    for path in list(folder.iterdir()):
        ours = path.suffix in (INCOMPLETE, REMOVED) or ocp.utils.TMP_DIR_SUFFIX in path.name
        if ours and path.is_dir():
            _remove(path)
    for aside in list(folder.glob(f"*{REPLACED}")):
        if os.path.lexists(aside.with_suffix("")) and exists(aside.with_suffix("") / MANIFEST):
            _remove(aside)
        else:
            _remove(aside.with_suffix(""))
            aside.rename(aside.with_suffix(""))
    for path in list(folder.iterdir()):
        if path.name.isdecimal() and path.is_dir() and not exists(path / MANIFEST):
            set_aside.append(aside := _rename(path, UNFINISHED))
            warnings.warn(
                f"{path} has no {MANIFEST}, so it is no finished checkpoint; it is now at {aside}",
                stacklevel=3,
            )
    for path in reversed(found := sealed(folder)):
        try:
            verify(path)
            check_step(path)
            break
        except DamagedCheckpointError as error:
            set_aside.append(aside := _rename(path, DAMAGED))
            before = ", and the one before is used" if path != found[0] else ""
            warnings.warn(f"{error}; it is now at {aside}{before}", stacklevel=3)
    return set_aside


def _check_none(folder: Path) -> None:
    """Checks that a folder without usable checkpoints never had any.

    Raises:
      ValueError: naming those that were set aside.
    """
    unusable = [p.name for p in folder.iterdir() if p.name.startswith((DAMAGED, UNFINISHED))]
    if unusable:
        raise ValueError(
            f"{folder} has checkpoints, but none that can be used: {', '.join(sorted(unusable))}. "
            "Put a sound copy there, named by its step; or pass --restart to begin at step 0 "
            "(restart=True in Python), which moves all that is there out of the way"
        )


def _remove(path: Path) -> None:
    """Removes a file or folder if it is there; what cannot be removed now is left to `_tidy`."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _rename(path: Path, prefix: str) -> Path:
    """Puts `prefix` before a name, and a number after it if that name is taken."""
    first = path.with_name(prefix + path.name)
    numbered = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return path.rename(next(p for p in itertools.chain([first], numbered) if not p.exists()))
