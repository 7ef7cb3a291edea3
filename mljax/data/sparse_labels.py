"""Labels of which few are annotated, kept sparse until a row is read.

A dense table of OpenImages, 9 million images of 9,605 classes, would take 86 GB at one byte a
label; its seven annotations an image take 29 bytes an image here.
"""

from typing import SupportsIndex

import numpy as np
from jaxtyping import Bool, Int, Int8, UInt

# Rows that are copied at once.
_CHUNK = 2**16


class SparseLabels:
    """Labels `[n, k]` of which only the annotated ones are kept; the others are -1.

    A row takes 8 bytes, and 3 bytes for each annotation (2 with up to 256 classes). Rows are read
    as of an array: `labels[i]` is int8 `[k]`. Where annotations of a row contradict each other,
    the class is present.

    Args:
      starts: where each row's annotations begin, and where the last one's end.
      columns: the class of each annotation.
      present: whether it says 1, present, or 0, absent.
      num_classes: k.
    """

    def __init__(
        self,
        starts: Int[np.ndarray, " starts"],
        columns: Int[np.ndarray, " m"] | UInt[np.ndarray, " m"],
        present: Bool[np.ndarray, " m"],
        *,
        num_classes: int,
    ) -> None:
        self._starts = starts
        self._columns = columns.astype(np.min_scalar_type(max(num_classes - 1, 0)), copy=False)
        self._present = present
        self.shape = (len(starts) - 1, num_classes)

    @classmethod
    def from_annotations(
        cls,
        rows: Int[np.ndarray, " m"] | UInt[np.ndarray, " m"],
        columns: Int[np.ndarray, " m"] | UInt[np.ndarray, " m"],
        present: Bool[np.ndarray, " m"],
        *,
        shape: tuple[int, int],
    ) -> "SparseLabels":
        """Returns labels of `shape` from annotations in any order; `rows` says whose they are."""
        if np.any(rows[1:] < rows[:-1]):
            order = np.argsort(rows, kind="stable")
            rows, columns, present = rows[order], columns[order], present[order]
        # Numbers of another type than the rows' would make numpy copy all rows to a common one.
        number = np.promote_types(rows.dtype, np.min_scalar_type(shape[0]))
        starts = np.searchsorted(rows, np.arange(shape[0] + 1, dtype=number))
        return cls(starts, columns, present, num_classes=shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: SupportsIndex) -> Int8[np.ndarray, " k"]:
        row = range(len(self))[row]
        kept = slice(self._starts[row], self._starts[row + 1])
        columns, present = self._columns[kept], self._present[kept]
        labels = np.full(self.shape[1], -1, np.int8)
        labels[columns] = 0
        labels[columns[present]] = 1
        return labels

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self._starts.nbytes + self._columns.nbytes + self._present.nbytes

    def annotations(self) -> Int[np.ndarray, " n"]:
        """Returns the number of annotations that each row keeps."""
        return np.diff(self._starts)

    def take(self, rows: Int[np.ndarray, " r"]) -> "SparseLabels":
        """Returns the labels of some rows, in the order given; row -1 is one without annotation."""
        counts = np.where(rows < 0, 0, self.annotations()[rows])
        starts = np.append(0, np.cumsum(counts))
        columns, present = [self._columns[:0]], [self._present[:0]]
        for first in range(0, len(rows), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            shift = self._starts[rows[chunk]] - starts[:-1][chunk]
            kept = np.repeat(shift, counts[chunk])
            kept += np.arange(starts[first], starts[first] + len(kept))
            columns.append(self._columns[kept])
            present.append(self._present[kept])
        return SparseLabels(
            starts, np.concatenate(columns), np.concatenate(present), num_classes=self.shape[1]
        )

    def with_columns(self, columns: Int[np.ndarray, " c"]) -> "SparseLabels":
        """Returns the labels of some classes, in the order given."""
        column_of = np.full(self.shape[1], -1, np.int32)
        column_of[columns] = np.arange(len(columns))
        found = column_of[self._columns]
        kept = found >= 0
        before = np.append(0, np.cumsum(kept))
        return SparseLabels(
            before[self._starts], found[kept], self._present[kept], num_classes=len(columns)
        )
