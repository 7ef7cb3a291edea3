"""Scores of many images: in memory, or in a file once they are many."""

import tempfile
import weakref

import numpy as np
from jaxtyping import Float, Shaped

# Bytes of one array that stay in memory; more of them become a memory map.
MAX_IN_MEMORY = 2**28


class Rows:
    """Rows of one array that come in parts: in memory, or in a file once they are many.

    An array larger than `MAX_IN_MEMORY` lies in a file without a name in the folder for temporary
    files (TMPDIR chooses another) and goes with it: 4.8 GB of scores and 1.2 GB of labels for
    125,000 images and 9,605 classes. What memory is free, the system uses to keep parts of the file
    at hand.
    """

    def __init__(self) -> None:
        self._file = None
        self._parts: list[np.ndarray] = []
        self._length = self._bytes = 0

    def append(self, part: Shaped[np.ndarray, "rows *rest"]) -> None:
        """Adds rows at the end."""
        self._parts.append(part)
        self._length += len(part)
        self._bytes += part.nbytes
        if self._bytes > MAX_IN_MEMORY:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            for waiting in self._parts:
                waiting.tofile(self._file)
            self._parts = [part[:0]]

    def array(self) -> Shaped[np.ndarray, "n *rest"]:
        """Returns all rows; there must be one part at least."""
        if self._file is None:
            return np.concatenate(self._parts)
        self._file.flush()
        # The map outlives the closing of the file, which has no name any more.
        empty = self._parts[0]
        return np.memmap(self._file, empty.dtype, "r", shape=(self._length, *empty.shape[1:]))


def sigmoid(logits: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
    """Returns the scores of float32 logits, in [0, 1]."""
    # exp of a large argument overflows to infinity; its reciprocal, 0, is the right limit.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))
