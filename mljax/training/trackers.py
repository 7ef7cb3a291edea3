"""Trackers of a run: their arrays gathered, written and drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from mljax.data.records import Classes
from mljax.models.arrays import Arrays


def save_trackers(
    trackers: Mapping[str, Any], arrays: Mapping[str, Arrays], classes: Classes, workdir: Path
) -> None:
    """Lets each tracker write what it keeps; all processes must call it together."""
    for name, those in _gather(trackers, arrays).items():
        if jax.process_index() == 0:
            trackers[name].save(those, classes, workdir)


def draw_trackers(
    trackers: Mapping[str, Any],
    arrays: Mapping[str, Arrays],
    classes: Classes,
    workdir: Path,
    console: Console,
) -> None:
    """Lets each tracker that can draw its pictures, and prints the line that it returns."""
    for name, those in _gather(trackers, arrays).items():
        if jax.process_index() == 0 and hasattr(trackers[name], "pictures"):
            line = trackers[name].pictures(those, classes, workdir)
            console.print(line, highlight=False, markup=False)


def _gather(trackers: Mapping[str, Any], arrays: Any) -> dict[str, Arrays]:  # noqa: ANN401
    """Returns the whole arrays of all trackers on every process."""
    if not trackers:
        return {}
    if jax.process_count() > 1:
        arrays = multihost_utils.process_allgather(arrays, tiled=True)
    return jax.tree.map(np.asarray, arrays)
