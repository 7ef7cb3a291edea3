"""The file that TensorBoard reads."""

import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar


class EventFile:
    """Scalars from a step on; TensorBoard takes back what older files have of such steps.

    Args:
      folder: made if it is not there.
      first_step: of this file.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        folder.mkdir(exist_ok=True)
        # The name has the second in it: a run that resumes at once must not write over it. This
        # writer raises what `SummaryWriter` meets in a thread of its own.
        self._writer = EventsWriter(str(folder / "events"), f".from-step-{first_step:09d}")
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, name: str, value: float) -> None:
        """Puts one scalar into the buffer."""
        self._write(step, summary=scalar(name, value))

    def flush(self) -> None:
        """Writes the buffer to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Writes what is in the buffer and closes the file."""
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:  # noqa: ANN401
        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
