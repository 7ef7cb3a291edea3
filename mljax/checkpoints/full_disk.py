"""A full disk as one error in one line.

Orbax raises an error of its own for it, from several threads, and logs each with its traceback.
"""

import contextlib
import errno
import functools
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_TEXT = os.strerror(errno.ENOSPC)
_FOLLOWING = ("Event loop is closed", "cannot schedule new futures after")


@contextlib.contextmanager
def full_disk_as_one_error(path: Path) -> Iterator[None]:
    """Raises what a full disk does to a save as one error, which also stands for what is logged.

    Raises:
      OSError: naming the path; other errors are raised as they are.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_about_something_else)
    _ignore_what_follows()
    try:
        yield
    except Exception as error:
        if _TEXT not in str(error) or (isinstance(error, OSError) and error.filename):
            raise
        raise OSError(errno.ENOSPC, _TEXT, str(path)) from error


def _is_about_something_else(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not any(text in f"{record.getMessage()} {error}" for text in (_TEXT, *_FOLLOWING))


@functools.cache
def _ignore_what_follows() -> None:
    """Leaves out what native threads print when an error in another one has closed their loop."""
    show, show_unraisable = sys.excepthook, sys.unraisablehook

    def follows(error: BaseException | None, frames: TracebackType | None) -> bool:
        # The outermost frame is asyncio's: no Python code has called it.
        native = frames is not None and frames.tb_frame.f_code.co_name == "call_soon_threadsafe"
        return native and any(text in str(error) for text in _FOLLOWING)

    def show_others(
        kind: type[BaseException], error: BaseException, frames: TracebackType | None
    ) -> None:
        if not follows(error, frames):
            show(kind, error, frames)

    def show_other_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
        if not follows(unraisable.exc_value, unraisable.exc_traceback):
            show_unraisable(unraisable)

    sys.excepthook = show_others
    sys.unraisablehook = show_other_unraisable
