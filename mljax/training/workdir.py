"""The folder of a run: held by one run at a time, and cleared for a fresh start on demand."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import jax

from mljax.devices.processes import wait_for_all

LOCK = "run.lock"

# What a run writes; the checkpoints last, so that they tell how far an interrupted move came.
_OUTPUT = ("best", "tensorboard", "metrics.jsonl", "config.json", "checkpoints")


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of a workdir, which is made; only the first process does.

    The operating system lets go of the lock when its holder ends, however that happens.

    Raises:
      ValueError: if another run is there, with its process and host, and since when.
    """
    if jax.process_index() != 0:
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"workdir {workdir} is in use by another run: {_holder(file.read())}. Wait for its "
                "end, or choose another workdir"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            warnings.warn(
                f"{path}: this file system has no locks; start no second run in {workdir}",
                stacklevel=3,
            )
        file.truncate(0)
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": now}, file)
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said which"


def clear(workdir: Path) -> Path | None:
    """Moves what earlier runs wrote to `before-restart` in the workdir; returns where that is.

    All processes must call it together. Nothing is deleted.
    """
    aside = None
    if jax.process_index() == 0:
        there = [workdir / name for name in _OUTPUT if os.path.lexists(workdir / name)]
        if there:
            aside = _unused(workdir / "before-restart")
            aside.mkdir()
            for path in there:
                path.rename(aside / path.name)
    wait_for_all("workdir cleared")
    return aside


@contextlib.contextmanager
def left_as_it_was(folder: Path) -> Iterator[None]:
    """Makes a folder with its parents, and removes in the end those that it made."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if jax.process_index() == 0:
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()


def keep_log(workdir: Path) -> Path | None:
    """Copies the log of a run that goes back to an earlier checkpoint; returns the copy's path."""
    log = workdir / "metrics.jsonl"
    if not log.is_file():
        return None
    copy = _unused(workdir / "metrics.before-damage.jsonl")
    shutil.copyfile(log, copy)
    return copy


def _unused(path: Path) -> Path:
    """Returns `path`, or the first of `path-2`, `path-3`, ... that does not exist."""
    stem, suffix = path.stem, path.suffix
    numbered = (path.with_name(f"{stem}-{number}{suffix}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not os.path.lexists(p))
