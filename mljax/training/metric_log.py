"""Figures of a run over its steps: JSON lines, TensorBoard, images per second."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from mljax.config.text_files import named, write_text

# Seconds that TensorBoard's files lag behind.
_LAG = 2.0


class MetricLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard files in a workdir.

    Lines of steps after `resumed_step` are removed: the run is about to write them again. A line
    is on disk at once; TensorBoard's files lag by two seconds, which a killed run may lose.
    """

    def __init__(self, workdir: Path, *, resumed_step: int) -> None:
        path = workdir / "metrics.jsonl"
        kept = path.read_text("utf-8").splitlines() if path.is_file() else []
        kept = [line for line in kept if _step(line) <= resumed_step]
        write_text(path, "".join(line + "\n" for line in kept))
        self._path = path
        self._lines = path.open("a", buffering=1, encoding="utf-8")
        # Only for a run that writes: tensorboardX loads all of torch where that is installed, about
        # two seconds that each start of a command would wait.
        from mljax.training.event_file import EventFile

        self._board = EventFile(workdir / "tensorboard", first_step=resumed_step + 1)
        self._flushed = time.monotonic()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of one step; one that is not finite becomes null in the JSON.

        Raises:
          OSError: naming the log, such as on a full disk.
        """
        finite = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
        try:
            self._lines.write(json.dumps({"step": step, **finite}) + "\n")
            for name, value in scalars.items():
                self._board.write(step, name, float(value))
            if time.monotonic() - self._flushed > _LAG:
                self._board.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            raise named(error, self._path) from error

    def close(self) -> None:
        """Writes out what is still in memory; raises as `write`."""
        try:
            self._lines.close()
            self._board.close()
        except OSError as error:
            raise named(error, self._path) from error


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
