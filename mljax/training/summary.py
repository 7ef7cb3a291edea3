"""What a run is, in a table, before it starts."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from mljax.config.schema import Config
from mljax.data.records import Records
from mljax.terminal.grammar import counted
from mljax.training.progress import Progress


def describe(
    config: Config,
    train: Records,
    evaluation: Records,
    *,
    params: Mapping[str, Any],
    devices: Iterable[jax.Device],
    steps_per_epoch: int,
    total_steps: int,
    initialized: str,
) -> dict[str, str]:
    """Returns {what: text} of all that a reader asks before a run starts.

    Args:
      config: of the run.
      train: the training split.
      evaluation: the split that is evaluated.
      params: parameters by dotted path.
      devices: all of them.
      steps_per_epoch: optimizer steps.
      total_steps: optimizer steps.
      initialized: where the weights are from.
    """
    height, width = config.data.preprocessing.height_width
    parameters, groups = count_parameters(params)
    others = f", {counted(len(evaluation.class_names), 'other')} to evaluate"
    epochs, processes = config.train.epochs, counted(jax.process_count(), "process")
    unit = "epoch" if epochs == 1 else "epochs"
    found = list(devices)
    kinds = dict.fromkeys(device.device_kind for device in found)
    return {
        "data": f"{config.data.reader.name}: {counted(len(train), 'image')} to train, "
        f"{len(evaluation)} to evaluate, {counted(len(train.class_names), 'class')}"
        + ("" if evaluation.class_names == train.class_names else others),
        "input": f"{config.data.batch_size} x {height} x {width} x 3, {config.model.dtype}",
        "network": f"{config.model.backbone.name} + {config.model.head.name}, "
        f"{parameters:,} parameters",
        "": "\n".join(f"{name} {count:,}" for name, count in groups.items()),
        "weights": initialized,
        "losses": ", ".join(f"{x.name} ({x.reduction})" for x in config.losses),
        "optimizer": f"{config.optimizer.algorithm.name}, {config.schedule.name}",
        "steps": f"{total_steps} ({epochs:g} {unit} of {steps_per_epoch})",
        "devices": f"{len(found)} x {', '.join(kinds)}, in {processes}",
        **describe_numbers(config, found[0].platform),
    }


def describe_numbers(config: Config, platform: str) -> dict[str, str]:
    """Returns {what: text} of how exact and how equal the numbers of a run are, where it matters.

    Args:
      config: of the run.
      platform: of its devices, as jax calls it.
    """
    rows, precision = {}, config.train.matmul_precision
    if platform != "cpu" and config.model.dtype == "float32":
        set_in_jax = jax.config.jax_default_matmul_precision  # pyright: ignore
        chosen = (set_in_jax or "default") if precision == "default" else precision
        coarse = "; on GPUs default is TF32: --set train.matmul_precision=highest for float32"
        rows["products"] = f"precision {chosen}" + (coarse if chosen == "default" else "")
    if config.train.deterministic:
        rows["equal bits"] = {
            "cpu": "nothing to set on CPUs: equal runs give them",
            "gpu": "asked of XLA, which takes longer steps for it; promised for the same number "
            "and kind of devices, jax, CUDA, cuDNN and driver alone",
        }.get(platform, f"not promised: nothing is known to set on {platform}")
    return rows


def print_table(rows: Mapping[str, str], console: Console) -> None:
    """Prints two columns, the first in bold."""
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}", value)
    console.print(table)


def count_parameters(params: Mapping[str, Any]) -> tuple[int, dict[str, int]]:
    """Returns the number of trained values, and how many each part of the network has.

    The parts are told by the first two levels of the dotted paths; stages are one each.
    """
    groups: dict[str, int] = {}
    for path, array in params.items():
        parts = path.split(".")
        name = ".".join(parts[: 3 if parts[1] == "stages" else 2])
        groups[name] = groups.get(name, 0) + array.size
    return sum(groups.values()), groups


def closing_lines(
    progress: Progress,
    *,
    best_by: str,
    folder: Path,
    skipped_steps: int,
) -> list[str]:
    """Returns how a run ended, for people.

    Args:
      progress: at the end.
      best_by: the figure that chose the best network.
      folder: where that is.
      skipped_steps: steps that were not finite.
    """
    lines = []
    if (best := progress.best) is not None:
        figure = "nan" if best.figure is None else f"{best.figure:.2f}"
        lines.append(
            f"best {best_by} {figure}: {best.weights} weights of step {best.step}, in {folder}"
        )
    if skipped_steps:
        were = "was" if skipped_steps == 1 else "were"
        lines.append(f"{counted(skipped_steps, 'step')} {were} left out: not finite")
    if bad := progress.bad_images:
        names = ", ".join(bad[:10])
        more = ", ..." if len(bad) > 10 else ""
        lines.append(f"{counted(len(bad), 'training image')} could not be read: {names}{more}")
    return lines
