"""What a run writes for people and programs to read: JSON lines, TensorBoard, a progress bar."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

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
