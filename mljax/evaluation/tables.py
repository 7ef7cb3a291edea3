"""What tables of many classes share."""

import numpy as np
from jaxtyping import Float

# Beyond this, a table shows only the first and the last classes by some value.
MAX_CLASSES = 100


def extremes(values: Float[np.ndarray, " k"]) -> list[int]:
    """Returns the classes to show: all in their order, or of many those at both ends by value.

    nan sorts last.
    """
    if len(values) <= MAX_CLASSES:
        return list(range(len(values)))
    order = np.argsort(values, kind="stable").tolist()
    return order[: MAX_CLASSES // 2] + order[-MAX_CLASSES // 2 :]
