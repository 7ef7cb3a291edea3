"""CIFAR-10 and CIFAR-100 from their binary files.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mljax.data.files.text import read_lines
from mljax.data.records import Records

_PIXELS = 3 * 32 * 32


def cifar10(split: str, *, root: str | Path) -> Records:
    """Reads the five `data_batch_<n>.bin`, or `test_batch.bin`; names from `batches.meta.txt`.

    Args:
      split: `train` or `test`.
      root: the folder `cifar-10-batches-bin`.

    Raises:
      ValueError: for another split, or a file that is not whole.
      FileNotFoundError: for a file that is not there.
    """
    train = [f"data_batch_{number}.bin" for number in range(1, 6)]
    files = _of_split(split, {"train": train, "test": ["test_batch.bin"]})
    return _read(Path(root).expanduser(), files, "batches.meta.txt", label_bytes=1)


def cifar100(split: str, *, root: str | Path) -> Records:
    """Reads `train.bin` or `test.bin` with the fine labels; names from `fine_label_names.txt`.

    Args:
      split: `train` or `test`.
      root: the folder `cifar-100-binary`.

    Raises:
      ValueError: for another split, or a file that is not whole.
      FileNotFoundError: for a file that is not there.
    """
    files = _of_split(split, {"train": ["train.bin"], "test": ["test.bin"]})
    return _read(Path(root).expanduser(), files, "fine_label_names.txt", label_bytes=2)


def _of_split(split: str, files: dict[str, list[str]]) -> list[str]:
    if split not in files:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(files)}")
    return files[split]


def _read(root: Path, files: Sequence[str], names_file: str, *, label_bytes: int) -> Records:
    """Reads rows of labels, of which the last is the class, and pixels: red, green, blue planes."""
    names = tuple(name for line in read_lines(root / names_file) if (name := line.strip()))
    rows = np.concatenate([_rows(root / file, label_bytes + _PIXELS) for file in files])
    classes = rows[:, label_bytes - 1]
    if classes.max() >= len(names):
        raise ValueError(f"{root}: class {classes.max()}, but {names_file} names {len(names)}")
    images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.eye(len(names), dtype=np.int8)[classes]
    return Records(images=np.ascontiguousarray(images), labels=labels, class_names=names)


def _rows(path: Path, width: int) -> np.ndarray:
    content = np.fromfile(path, np.uint8)
    if not len(content) or len(content) % width:
        raise ValueError(f"{path}: {len(content)} bytes are no whole number of images of {width}")
    return content.reshape(-1, width)
