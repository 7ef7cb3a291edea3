"""Figures of an evaluation: what evaluators return, by name."""

from collections.abc import Mapping
from typing import Any


def find_figure(figures: Mapping[str, Any], name: str) -> float | None:
    """Returns a figure of an evaluation; None if it is undefined.

    Args:
      figures: as dicts, lists and numbers.
      name: of a number; dots lead into dicts, as in `overall.OF1`.

    Raises:
      ValueError: if no evaluator gives it, naming those that there are.
    """
    numbers = dict(_numbers(figures, ""))
    if name not in numbers:
        raise ValueError(f"no evaluator gives the figure {name!r}; there are {', '.join(numbers)}")
    return numbers[name]


def _numbers(figures: Mapping[str, Any], path: str) -> list[tuple[str, float | None]]:
    found = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{path}{name}.")
        elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            found.append((path + name, value))
    return found
