"""Upgrades what mljax 0.1 saved: `python -m converters.upgrade FOLDER`.

The folder is a checkpoint or the workdir of a run. Its recipes become configs, and the state of
training gets the layout of this version, so that the run can be resumed. Weights stay as they are.
Each checkpoint is verified, then replaced as a whole.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from mljax.checkpoints.manifest import INCOMPLETE, MANIFEST, seal, sealed, verify
from mljax.config.load import from_json, to_json
from mljax.config.schema import Config
from mljax.terminal.command import run_command
from mljax.training.progress import Progress
from mljax.training.run_checkpoints import REPLACED

_OLD, _NEW = "recipe.json", "config.json"


def upgrade(folder: str | Path) -> list[Path]:
    """Upgrades a checkpoint, or a workdir with all its checkpoints.

    Returns:
      The checkpoints that were upgraded; none if all are of this version already.

    Raises:
      FileNotFoundError: if the folder is no checkpoint and no workdir.
      DamagedCheckpointError: for a checkpoint whose files are not the ones that were saved.
      ValueError: for a recipe that is none.
    """
    folder = Path(folder).absolute()
    if (folder / MANIFEST).is_file():
        found = [folder]
    else:
        found = [*sealed(folder / "best"), *sealed(folder / "checkpoints")]
    if not found and not (folder / _OLD).is_file():
        raise FileNotFoundError(f"no checkpoint at {folder}: expected one, or the workdir of a run")
    old = [path for path in found if (path / _OLD).is_file()]
    for path in old:
        _replace(path)
    if (folder / _OLD).is_file():
        (folder / _NEW).write_text(_upgrade_config(folder / _OLD), "utf-8")
        (folder / _OLD).unlink()
    return old


def _replace(path: Path) -> None:
    verify(path)
    new, aside = path.with_name(path.name + INCOMPLETE), path.with_name(path.name + REPLACED)
    shutil.rmtree(new, ignore_errors=True)
    try:
        shutil.copytree(path, new)
        (new / MANIFEST).unlink()
        (new / _NEW).write_text(_upgrade_config(new / _OLD), "utf-8")
        (new / _OLD).unlink()
        if (new / "training").is_dir():
            _upgrade_training(new)
        seal(new)
        path.rename(aside)
        new.rename(path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(aside)


def _upgrade_training(folder: Path) -> None:
    """Renames the arrays of the state, and what is known of the progress."""
    training = folder / "training"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata = checkpointer.metadata(training).item_metadata
        assert metadata is not None
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.tree)
        arguments = ocp.args.PyTreeRestore(item=metadata.tree, restore_args=kinds)
        arrays: dict[str, Any] = checkpointer.restore(training, args=arguments)
    renamed = {new: a for name, a in arrays.items() if (new := _rename(name)) is not None}
    shutil.rmtree(training)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(training, args=ocp.args.StandardSave(renamed))
    file = folder / "progress" / "metadata"
    old = json.loads(file.read_text("utf-8"))
    best = old["best"]
    new = {
        "best": best and {"figure": best["mAP"], "step": best["step"], "weights": best["weights"]},
        # Only their numbers are known, and these change with the list of images.
        "bad_images": [f"image {number}" for number in old["skipped"]],
        "evaluated": old["evaluated"],
    }
    file.write_text(to_json(from_json(Progress, json.dumps(new), str(file))), "utf-8")


def _rename(name: str) -> str | None:
    """Returns the path of an array in this version's state; None where it has none any more."""
    if name == "opt_state.count" or name.startswith("opt_state.hyperparams"):
        # Hyperparameters are a function of the step.
        return None
    for old, new in (
        ("opt_state.inner_state.", "opt_state."),
        ("ema_stats.", "ema_statistics."),
        ("prior.", "trackers.class_prior."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _upgrade_config(file: Path) -> str:
    """Returns a recipe as the JSON of a config.

    Raises:
      ValueError: for a file that is no recipe.
    """
    try:
        config = json.loads(file.read_text("utf-8"))
        for change in (_change_reader, _change_losses, _change_optimizer, _change_hooks):
            change(config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no recipe of mljax 0.1: {error!r}") from error
    return to_json(from_json(Config, json.dumps(config), str(file))) + "\n"


def _part(name: str, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"name": name, "kwargs": kwargs}


def _change_reader(config: dict[str, Any]) -> None:
    reader = config["data"]["reader"]
    if reader["name"] == "partial":
        kwargs = reader["kwargs"]
        kwargs["reader"] = _part(kwargs["reader"], **(kwargs.pop("reader_kwargs", None) or {}))


def _change_losses(config: dict[str, Any]) -> None:
    for loss in config["losses"]:
        prior = loss["kwargs"].pop("prior", None)
        if isinstance(prior, str) and loss["kwargs"].get("mode") == "selective":
            loss["kwargs"]["prior"] = _part("prior_csv", path=prior)
        elif prior is not None and not isinstance(prior, str):
            loss["kwargs"]["prior"] = prior


def _change_optimizer(config: dict[str, Any]) -> None:
    old, schedule = config["optimizer"], config["schedule"]
    peak_lr = old.pop("peak_lr")
    if schedule["cycle_beta1"]:
        old.pop("beta1")
    config["optimizer"] = {"peak_lr": peak_lr, "algorithm": _part("torch_adam", **old)}
    config["schedule"] = _part("one_cycle", **schedule)


def _change_hooks(config: dict[str, Any]) -> None:
    train = config["train"]
    count = train.pop("accumulation")
    if count > 1:
        train["gradients"] = [_part("micro_batches", count=count)]
    if train.pop("estimate_prior", False):
        train["trackers"] = [_part("class_prior")]
    if config["model"]["head"]["name"] == "kernel_mixture":
        config["eval"]["evaluators"] = [_part("multilabel"), _part("kernels")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m converters.upgrade",
        description="Upgrades checkpoints and workdirs of mljax 0.1.",
    )
    parser.add_argument("folder", type=Path, help="a checkpoint, or the workdir of a run")
    arguments = parser.parse_args(argv)

    def run() -> None:
        upgraded = upgrade(arguments.folder)
        lines = [f"upgraded {path}" for path in upgraded] or ["nothing to upgrade"]
        Console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
