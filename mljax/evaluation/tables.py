"""What tables of many classes share."""

import numpy as np
from jaxtyping import Float
from rich.console import Console

# Beyond this, a table shows only the first and the last classes by some value; at a terminal, where
# more rows would push the result out of sight, beyond the second.
MAX_CLASSES = 100
MAX_ROWS_ON_SCREEN = 20


def max_rows(console: Console) -> int:
    """Returns how many classes a table has at most."""
    return MAX_ROWS_ON_SCREEN if console.is_terminal else MAX_CLASSES


def extremes(values: Float[np.ndarray, " k"], limit: int = MAX_CLASSES) -> list[int]:
    """Returns the classes to show: all in their order, or of many those at both ends by value.

    nan sorts last.
    """
    if len(values) <= limit:
        return list(range(len(values)))
    order = np.argsort(values, kind="stable").tolist()
    return order[: limit // 2] + order[-limit // 2 :]
