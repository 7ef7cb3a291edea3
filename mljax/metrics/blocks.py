"""Arrays of scores and labels `[n, k]`, checked, and read in blocks of limited size."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int, Shaped

# Of scores, labels, masks and what is made of them: 134 classes of 125,000 images at a time.
BLOCK_BYTES = 2**28


# [n, k]; the type leaves the shape open, so that a wrong one meets the error that explains it.
AnyArray = Shaped[np.ndarray | Array, "..."]


@dataclass(frozen=True)
class Table:
    """Arrays of one shape `[n, k]`, and whether unannotated labels are left out.

    Blocks of it are scores as float32 or float64, labels, and which entries count.
    """

    scores: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray | None
    partial: bool

    def row_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields all classes of some images at a time, in order."""
        for rows in self._slices(*self.labels.shape):
            yield self._block(rows, slice(None))

    def class_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields all images of some classes at a time, in order."""
        for classes in self._slices(*self.labels.shape[::-1]):
            yield self._block(slice(None), classes)

    def _slices(self, length: int, width: int) -> Iterator[slice]:
        # Scores of up to eight bytes, a label, a mask, and room for what is made of them.
        step = max(BLOCK_BYTES // (16 * width), 1)
        return (slice(first, first + step) for first in range(0, length, step))

    def _block(self, rows: slice, classes: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Of a memory map this is a copy: the ranking reads its columns again and again.
        scores, labels = (np.array(x[rows, classes]) for x in (self.scores, self.labels))
        if scores.dtype not in (np.float32, np.float64):
            scores = scores.astype(np.float32 if scores.dtype.itemsize == 2 else np.float64)
        counted = labels >= 0 if self.partial else np.ones(labels.shape, bool)
        if self.ignored is not None:
            counted &= ~self.ignored[rows, classes].astype(bool)
        return scores, labels, counted


def same_shape(
    scores: AnyArray, labels: AnyArray, ignored: AnyArray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns the arrays as numpy's; raises where they are no arrays `[n, k]` of one shape."""
    arrays = [np.asarray(scores), np.asarray(labels)]
    if ignored is not None:
        arrays.append(np.asarray(ignored))
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != 2 or not arrays[0].size or len(set(shapes)) > 1:
        raise ValueError(
            "expected scores, labels and the ignored mask as arrays [n, k] of one shape, none of "
            f"it 0; got {', '.join(map(str, shapes))}"
        )
    return arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else None


def checked(
    scores: AnyArray, labels: AnyArray, ignored: AnyArray | None, *, partial: bool = False
) -> Table:
    """Returns the arrays as a table; raises on what is no such array."""
    table = Table(*same_shape(scores, labels, ignored), partial)
    nans = unknown = missing = 0
    for block, block_labels, counted in table.row_blocks():
        nans += np.count_nonzero(np.isnan(block))
        unannotated = block_labels == -1
        known = unannotated | (block_labels == 0) | (block_labels == 1)
        unknown += known.size - np.count_nonzero(known)
        missing += np.count_nonzero(unannotated & counted)
    size = table.labels.size
    if nans:
        raise ValueError(f"scores: {nans} of {size} are nan; look for the cause upstream")
    if unknown:
        raise ValueError(
            f"labels: {unknown} of {size} are neither 1 (present), 0 (absent) nor -1 (unannotated)"
        )
    if missing:
        raise ValueError(
            f"labels: {missing} of {size} are -1 (unannotated); for partial labels call "
            "partial_average_precision or partial_mean_average_precision, or precision_recall_f1 "
            "with partial=True"
        )
    return table


class LabelCounts(NamedTuple):
    """How many images each class is present in, absent from, and unannotated for."""

    present: Int[np.ndarray, " k"]
    absent: Int[np.ndarray, " k"]
    unannotated: Int[np.ndarray, " k"]


def count_labels(labels: AnyArray, *, ignored: AnyArray | None = None) -> LabelCounts:
    """Returns the numbers of labels of each kind that are not ignored.

    Raises:
      ValueError: for labels that are no array `[n, k]`.
    """
    table = Table(*same_shape(labels, labels, ignored), partial=False)
    counts = np.zeros((3, table.labels.shape[1]), np.int64)
    for _, block, counted in table.row_blocks():
        for row, value in enumerate((1, 0, -1)):
            counts[row] += np.count_nonzero((block == value) & counted, axis=0)
    return LabelCounts(*counts)
