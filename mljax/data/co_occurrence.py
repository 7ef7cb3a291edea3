"""Which labels occur together: counts over images, and conditional probabilities."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mljax.data.files.npy import read_npy, read_npz

# Rows that are counted at once; sums of so many ones are exact in float32.
_CHUNK = 4096
_EXPECTED = "probabilities [classes, classes], or `adj` and `nums` with counts"


def co_occurrence(
    labels: Any,  # noqa: ANN401
) -> tuple[Int[np.ndarray, "k k"], Int[np.ndarray, " k"]]:
    """Returns in how many images two classes are both present, and how many each is present in.

    Args:
      labels: `[n, k]`, or anything with rows; 1 present. Absent and unannotated count alike.

    Returns:
      Pairs with a diagonal of zeros, and counts.
    """
    pairs = np.zeros((len(labels[0]),) * 2, np.int64)
    for first in range(0, len(labels), _CHUNK):
        rows = [np.asarray(labels[row]) for row in range(first, min(first + _CHUNK, len(labels)))]
        present = (np.stack(rows) == 1).astype(np.float32)
        pairs += (present.T @ present).astype(np.int64)
    counts = pairs.diagonal().copy()
    np.fill_diagonal(pairs, 0)
    return pairs, counts


def conditional_probabilities(
    pairs: Int[np.ndarray, "k k"], counts: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "k k"]:
    """Returns P(j | i) in row i, in float64.

    megvii-research/ML-GCN util.py, whose counts are of images. Differs from
    tosfaq/deep-object-reid, which divides by the instances of a class where a file lists several in
    an image: records hold only whether a class is present.

    A class without instances has a row of zeros; the originals divide 0 by 0 there.
    """
    return pairs / np.maximum(counts, 1)[:, None]


def read_probabilities(path: str | Path, num_classes: int) -> Float[np.ndarray, "k k"]:
    """Returns P(j | i) out of a file, whose classes are in label order.

    Args:
      path: of a `.npy` with the probabilities, or a `.npz` with the counts `adj` `[k, k]` and
        `nums` `[k]`, which are the entries of ML-GCN's pickles.
      num_classes: k.

    Raises:
      ValueError: for another file, or another number of classes.
    """
    path = Path(path)
    if path.suffix == ".npz":
        arrays = read_npz(path, _EXPECTED)
        if not {"adj", "nums"} <= arrays.keys():
            raise ValueError(f"{path}: holds {', '.join(arrays)}; expected {_EXPECTED}")
        pairs, counts = arrays["adj"], arrays["nums"]
        shapes = {"adj": pairs.shape, "nums": counts.shape}
    else:
        pairs, counts = read_npy(path, _EXPECTED), np.ones(num_classes)
        shapes = {"probabilities": pairs.shape, "nums": counts.shape}
    if tuple(shapes.values()) != ((num_classes, num_classes), (num_classes,)):
        raise ValueError(f"{path}: got {shapes} for {num_classes} classes; expected {_EXPECTED}")
    if (np.nan_to_num(pairs) < 0).any() or (counts < 0).any():
        raise ValueError(f"{path}: expected no number below 0")
    return np.nan_to_num(pairs) / np.maximum(counts, 1)[:, None]
