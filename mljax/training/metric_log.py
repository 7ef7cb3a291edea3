"""What a run writes for people and programs: JSON lines, TensorBoard, progress, a class prior."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter


class MetricLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard files in a workdir.

    Lines of steps after `resumed_step` are removed: the run is about to write them again. A line
    is on disk at once; TensorBoard's files lag by two seconds, which a killed run may lose.
    """

    def __init__(self, workdir: Path, *, resumed_step: int) -> None:
        path = workdir / "metrics.jsonl"
        kept = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in kept if _step(line) <= resumed_step]
        temporary = path.with_name(path.name + ".incomplete")
        temporary.write_text("".join(line + "\n" for line in kept))
        temporary.rename(path)
        self._lines = path.open("a", buffering=1)
        self._board = SummaryWriter(
            str(workdir / "tensorboard"),
            purge_step=resumed_step + 1,
            flush_secs=2,
            # The name has the second in it: a run that resumes at once must not write over it.
            filename_suffix=f".from-step-{resumed_step + 1:09d}",
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of one step; one that is not finite becomes null in the JSON."""
        finite = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in scalars.items():
            self._board.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Writes out what is still in memory."""
        self._lines.close()
        self._board.close()


class Throughput:
    """Images per second between the steps that are logged."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def start(self, step: int) -> None:
        """Measures from the end of `step` on."""
        self._step, self._time = step, time.monotonic()

    def rate(self, step: int) -> float:
        """Returns the images per second since the last call, up to the end of `step`."""
        before, since = self._step, self._time
        self.start(step)
        return self._batch_size * (step - before) / (self._time - since)


def _step(line: str) -> float:
    """Returns the step of a line, or infinity for one that was cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def make_progress(console: Console) -> Progress:
    """Returns a progress bar with count, times and a `status` field."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        disable=not console.is_terminal,
    )


def annotated_shares(labels: Any, *, most: int = 100_000) -> Float[np.ndarray, " k"]:  # noqa: ANN401
    """Returns the share of images in which each class is annotated as present, in [0, 1].

    Args:
      labels: `[n, k]`, or anything with rows.
      most: at most so many rows are read, evenly spaced.
    """
    rows = np.linspace(0, len(labels) - 1, min(len(labels), most)).round().astype(int)
    present = np.zeros(len(labels[0]), np.int64)
    for row in rows:
        present += np.asarray(labels[row]) == 1
    return present / len(rows)


def draw_prior(
    path: Path,
    class_names: Sequence[str],
    prior: Float[np.ndarray, " k"],
    shares: Float[np.ndarray, " k"],
) -> None:
    """Writes a picture of an estimated class prior against how often the classes are annotated.

    The classes stand side by side, the highest prior first, and are named if there are at most 100.
    The vertical axis is logarithmic; what is below a hundredth of the least prior is at its foot.

    Args:
      path: the ending tells the format.
      class_names: the k names.
      prior: in [0, 1].
      shares: of `annotated_shares`.

    Raises:
      ImportError: without matplotlib.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-prior, kind="stable")
    foot = max(float(prior[prior > 0].min(initial=1.0)) / 100, 1e-8)
    count = len(order)
    figure = Figure(figsize=(min(max(0.16 * count, 6.0), 16.0), 5), layout="constrained")
    axes = figure.add_subplot()
    for values, marker, label in (
        (shares, "x", "share of the training images annotated as present"),
        (prior, "o", "estimated prior"),
    ):
        heights = np.maximum(values[order].astype(float), foot)
        axes.plot(np.arange(count), heights, marker, markersize=4, label=label)
    axes.set(yscale="log", ylim=(foot, 1), xlim=(-1, count))
    if count <= 100:
        names = [str(class_names[c]) for c in order]
        axes.set_xticks(np.arange(count), names, rotation=90, fontsize=7, parse_math=False)
    else:
        axes.set_xlabel(f"{count} classes by estimated prior")
    axes.legend()
    figure.savefig(path, dpi=150)
