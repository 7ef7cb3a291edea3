"""Figures of a run over its steps: JSON lines, TensorBoard, images per second."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

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
    """Images per second between the steps that are logged.

    Args:
      batch_size: images in a step.
      step: measures from its end on.
    """

    def __init__(self, batch_size: int, step: int) -> None:
        self._batch_size = batch_size
        self._step, self._time = step, time.monotonic()

    def rate(self, step: int) -> float:
        """Returns the images per second since the last call, up to the end of `step`."""
        before, since = self._step, self._time
        self._step, self._time = step, time.monotonic()
        return self._batch_size * (step - before) / (self._time - since)


def _step(line: str) -> float:
    """Returns the step of a line, or infinity for one that was cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
