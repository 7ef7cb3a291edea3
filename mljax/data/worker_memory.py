"""The life of data workers: they end with the process that they work for, and so does their memory.

Workers hand over batches in shared memory, files in /dev/shm under a name that begins with a token
of the main process, which holds a lock on a file of that name. When all of its processes are killed
at once, nobody is left to remove them: the next run finds that the lock is free.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import secrets
import signal
import sys
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path

MEMORY = Path("/dev/shm")
_PREFIX, _LOCK = "mljax-", ".lock"


@functools.cache
def memory_token() -> str:
    """Returns what the names of this process's shared memory begin with; removes that of the dead.

    It is empty where there is no /dev/shm, or no room in it.
    """
    # Python's tracker of shared memory starts with these options. It frees what a killed worker
    # leaves; its words on that would stand behind ours on the worker.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    try:
        free_leaked_memory()
        token = f"{_PREFIX}{secrets.token_hex(4)}"
        new, path = MEMORY / f".{token}{_LOCK}", MEMORY / f"{token}{_LOCK}"
        descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
        # It is held until this process ends, and seen by others only when it is held.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path)
    except OSError:
        return ""
    # A worker that was killed while it made a file leaves it.
    atexit.register(_remove, path)
    return token


def free_leaked_memory() -> list[Path]:
    """Removes the shared memory of processes that were killed; returns what was removed."""
    removed = []
    for lock in MEMORY.glob(f"{_PREFIX}*{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed += _remove(lock)
    return removed


def _remove(lock: Path) -> list[Path]:
    """Removes a lock and the shared memory of its process; returns what was there."""
    paths = [*lock.parent.glob(f"{lock.name.removesuffix(_LOCK)}-*"), lock]
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


def begin_worker(_index: int, _count: int, *, parent: int, token: str) -> None:
    """Prepares a worker.

    Ctrl-C and a closed terminal reach all processes: the main one says when its workers end. When
    that one is gone, whatever killed it, the worker ends within a second or two.

    Args:
      parent: the main process.
      token: of `memory_token`.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if token and hasattr(shared_memory, "_make_filename"):
        names = functools.partial(_memory_name, token)
        setattr(shared_memory, "_make_filename", names)  # noqa: B010
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _memory_name(token: str) -> str:
    return f"/{token}-{secrets.token_hex(8)}"


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
