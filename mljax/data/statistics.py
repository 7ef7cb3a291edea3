"""Statistics of the labels of a split."""

from typing import Any

import numpy as np
from jaxtyping import Float


def present_shares(labels: Any, *, most: int = 100_000) -> Float[np.ndarray, " k"]:  # noqa: ANN401
    """Returns the share of images in which each class is annotated as present, in [0, 1].

    Args:
      labels: `[n, k]`, or anything with rows.
      most: at most so many rows are read, evenly spaced.
    """
    rows = np.linspace(0, len(labels) - 1, min(len(labels), most)).round().astype(int)
    present = np.zeros(len(labels[0]), np.int64)
    for row in rows:
        present += np.asarray(labels[row]) == 1
    return present / len(rows)
