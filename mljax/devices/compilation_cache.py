"""Compiled programs that are kept between runs, and how long they took to compile."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jax
from rich.progress import Progress, TaskID

from mljax.devices.cpus import count_cpus

SECONDS = "mljax_compile_seconds.json"


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in a folder of `~/.cache/mljax/compiled`.

    It is named by jaxlib's version and the number of CPUs, which jax's key of a program lacks: one
    that was compiled for one CPU would run on one of two. `JAX_COMPILATION_CACHE_DIR` names another
    folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        compiled = Path.home() / ".cache" / "mljax" / "compiled"
        folder = compiled / f"jaxlib-{metadata.version('jaxlib')}-{count_cpus()}-cpus"
        jax.config.update("jax_compilation_cache_dir", str(folder))


@contextlib.contextmanager
def compiling(bar: Progress, task: TaskID, program: str, *, then: str) -> Iterator[None]:
    """Shows on a progress bar that a program is compiled, and how long that took the last time.

    Args:
      bar: has the field `status`.
      task: of the bar.
      program: what is compiled, in words; with the devices, this names it in the file of times.
      then: description of the task afterwards.
    """
    device = jax.devices()[0].device_kind
    program = f"{program}, {jax.device_count()} x {device}"
    last = _read_seconds().get(program)
    status = "" if last is None else f"took {last:.3g} s last time"
    bar.update(task, description="compiling", status=status)
    # The next drawing may be due only after the work has begun.
    bar.refresh()
    began = time.monotonic()
    yield
    bar.update(task, description=then, status="")
    _keep_seconds(program, time.monotonic() - began)


def _file() -> Path | None:
    """Returns the file of times beside the compiled programs, None if they are not kept."""
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    # A folder in a bucket is no path.
    return Path(folder) / SECONDS if folder and "://" not in folder else None


def _read_seconds() -> dict[str, float]:
    file = _file()
    try:
        known = json.loads(file.read_text("utf-8")) if file else {}
        return {str(name): float(seconds) for name, seconds in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        # None yet, or damaged: only the hint is missing.
        return {}


def _keep_seconds(program: str, seconds: float) -> None:
    file = _file()
    if file is None or jax.process_index() != 0:
        return
    text = json.dumps(_read_seconds() | {program: round(seconds, 1)}, indent=2)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    # A full or read-only disk is no reason to end a run.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, "utf-8")
        temporary.replace(file)
