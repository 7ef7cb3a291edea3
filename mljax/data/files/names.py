"""Names and ids as they enter: one type, one spelling, one check for every reader."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

# What identifies an image or a category in a file.
Id = int | str


def class_name(name: str) -> str:
    """Returns a class name as it is kept: in Unicode's NFC, without what is blank around it."""
    name = unicodedata.normalize("NFC", name).strip()
    # A byte order mark inside of a file, or spaces without width, are no part of a name.
    return name.strip("\ufeff\u200b\u2060").strip()


def check_class_names(names: Sequence[Any], source: str = "") -> tuple[str, ...]:
    """Returns the class names, each as `class_name` keeps it.

    Args:
      names: in label order.
      source: stands in front of a message: the file, and what in it.

    Raises:
      ValueError: if there is none, for one that is no text, has nothing to be seen or what no
        line of text may hold, or that occurs twice.
    """
    before = f"{source}: " if source else ""
    if isinstance(names, str):
        raise ValueError(f"{before}class names: got the text {names!r}, expected several names")
    if not len(names):
        raise ValueError(f"{before}there is no class")
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(
                f"{before}class name {number} is {name!r:.80} ({type(name).__name__}), expected "
                f"text, such as {str(name)!r:.80}"
            )
        kinds = [unicodedata.category(character) for character in name]
        if not any(kind[0] not in "CZ" for kind in kinds):
            raise ValueError(f"{before}class name {number} is blank: {name!r}")
        if "Cc" in kinds or "Cs" in kinds:
            raise ValueError(
                f"{before}class name {number} is {name!r:.80}, which has a character that is no "
                "text"
            )
    kept = tuple(map(class_name, names))
    if len(set(kept)) < len(kept):
        repeated = sorted(name for name, count in Counter(kept).items() if count > 1)
        raise ValueError(f"{before}class names occur twice: {', '.join(repeated)}")
    return kept


def check_id(value: Any, where: str) -> Id:  # noqa: ANN401
    """Returns an id: text, or a whole number of any size.

    Args:
      value: as it stands in the file.
      where: the file and the entry, for the error.

    Raises:
      ValueError: for anything else.
    """
    # The types themselves: True is an int, and equals 1.
    if type(value) is int or type(value) is str and value.strip():
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise ValueError(f"{where}: the id is {value!r:.80}, expected a whole number or text")


def check_file_name(name: Any, where: str) -> str:  # noqa: ANN401
    """Returns a file name that a file can have.

    Raises:
      ValueError: for another.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where}: the file name is {name!r:.80}, expected text")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise ValueError(f"{where}: no file here can have the name {name!r:.200}")
    return name


def one_id_each(ids: Sequence[Id], where: str) -> None:
    """Checks that no two ids are the same, also as text and as number.

    Raises:
      ValueError: naming the id that occurs twice.
    """
    seen: dict[str, Id] = {}
    for value in ids:
        earlier = seen.setdefault(str(value), value)
        if type(earlier) is not type(value):
            raise ValueError(
                f"{where}: the id {value} occurs as text and as number, so it is not known which "
                "one is meant"
            )
    if len(seen) < len(ids):
        twice = next(value for value, count in Counter(ids).items() if count > 1)
        raise ValueError(f"{where}: the id {twice!r} occurs twice")
