"""Class names: those in a torch file, in the spellings of training scripts, and those in a list."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mljax.data.files.names import check_class_names
from mljax.data.files.text import read_lines

# Lists of names, or {index: name}.
_NAME_LISTS = ("idx_to_class", "class_names", "classes")
# {name: index}.
_NAME_INDICES = ("class_to_idx", "classes_map")


def find_class_names(levels: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Returns the class names in the order of the logits, or None.

    Args:
      levels: the containers of a torch file, from the outermost to the weights.

    Raises:
      ValueError: for indices that do not tell an order, as when two names have the same, and names
        that are blank, no text, or there twice.
    """
    for level in levels:
        for known in (*_NAME_LISTS, *_NAME_INDICES):
            found = _names_in(level.get(known), known)
            if found is not None:
                return check_class_names(found, known)
    return None


def _names_in(value: Any, entry: str) -> tuple[Any, ...] | None:  # noqa: ANN401
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(_text, value)) or None
    if not isinstance(value, Mapping) or not value:
        return None
    by_index, by_name = list(value.items()), [(i, name) for name, i in value.items()]
    # Names may be numbers too, so what the entry is called decides which side is the index.
    for pairs in (by_index, by_name) if entry in _NAME_LISTS else (by_name, by_index):
        indices = [_index(index) for index, _ in pairs]
        known = [index for index in indices if index is not None]
        if len(known) == len(pairs):
            return _in_order(known, [_text(name) for _, name in pairs], entry)
    if any(_index(key) is not None for key in value):
        raise ValueError(f"{entry}: some of its indices are whole numbers, and some are not")
    if all(isinstance(name, str) for name in value.values()):
        ends = [re.search(r"[0-9]+$", str(key)) for key in value]
        numbers = [int(end[0]) for end in ends if end]
        if sorted(numbers) == list(range(len(value))):
            # Such as class_0, class_1, class_10, class_2 in a file with sorted keys.
            return _in_order(numbers, list(value.values()), entry)
        # Other keys, such as {"n01440764": "tench"}, can only mean their order.
        return tuple(value.values())
    return None


def _text(name: Any) -> Any:  # noqa: ANN401
    """Returns a name that is a whole number as text, and any other as it is."""
    is_number = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
    return str(name) if is_number else name


def _index(value: object) -> int | None:
    """Returns a number, or the text of one, as an integer; None for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, str):
        text = value.strip().removesuffix(".0")
        return int(text) if text.isdecimal() else None
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    # A tensor of one whole number.
    if getattr(value, "shape", None) == () and "int" in str(getattr(value, "dtype", "")):
        return int(value)  # pyright: ignore[reportArgumentType]
    return None


def _in_order(indices: list[int], names: list[Any], entry: str) -> tuple[Any, ...]:
    """Returns the names by their indices, which need not start at 0."""
    order = sorted(range(len(indices)), key=indices.__getitem__)
    for before, after in zip(order, order[1:], strict=False):
        if indices[before] == indices[after]:
            raise ValueError(
                f"{entry}: {names[before]!r} and {names[after]!r} have the same index "
                f"{indices[before]}"
            )
    return tuple(names[at] for at in order)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Returns the names in a list, one a line; empty lines are passed over.

    Raises:
      ValueError: for a file that is not UTF-8, with or without a byte order mark, that holds no
        name, or one twice; the message names the file, and the line if there is one.
      FileNotFoundError: if there is no such file.
    """
    names = [line.strip() for line in read_lines(path) if line.strip()]
    if not names:
        raise ValueError(f"{path}: holds no class name; expected one a line")
    return check_class_names(names, str(path))
