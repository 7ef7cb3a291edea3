"""Cells that list class names: separated by spaces or `,` `;` `|`, or as JSON or Python lists."""

import ast
import json
import re
import string
from collections.abc import Sequence

from mljax.data.files.label_table import LabelTable
from mljax.data.files.names import class_name

SEPARATORS = (",", ";", "|")

# What separates names in other scripts, but not here.
_FOREIGN = "\uff0c\u3001\u060c\uff1b\u061b\uff5c"
# How programs write a cell that is missing.
_MISSING = ("nan", "NaN", "null", "None", "<NA>")
_VALUES = {"0", "1", "-1"}

# Text in quotes or a whole number; two of them without a comma are no list.
_ITEM = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|-?\d+)"""
_LIST = re.compile(rf"[\[({{]\s*(?:{_ITEM}\s*,\s*)*(?:{_ITEM}\s*)?[\])}}]")


def read_lists(
    table: LabelTable, column: int, known: Sequence[str] = (), separator: str | None = None
) -> list[list[str]]:
    """Returns the class names that each cell of a column lists.

    All cells are read alike. Brackets make lists, of JSON or of Python. Otherwise the one of
    `,` `;` `|` that occurs separates names, which then may hold spaces; if none of them occurs,
    spaces separate names.

    Args:
      table: of the file.
      column: the one with the lists.
      known: names that may stand in a cell alone whatever they hold.
      separator: takes this one, and leaves the others to the names; None finds it.

    Raises:
      ValueError: for another separator, lists of several kinds, brackets that are no list, or a
        name of several words that are names themselves; the message names the file and the line.
    """
    if separator not in (None, " ", *SEPARATORS):
        raise ValueError(f"separator: got {separator!r}, expected ' ', ',', ';', '|' or None")
    cells = [row[column].strip() for row in table.rows]
    whole = set(known)
    # Cells that are one known name say nothing of how names are separated.
    alone = {number for number, cell in enumerate(cells) if not cell or class_name(cell) in whole}
    if separator is None:
        rest = (number for number in range(len(cells)) if number not in alone)
        separator = _found(table, cells, {n: _kinds(table, n, cells[n]) for n in rest})
    lists: list[list[str]] = []
    for number, cell in enumerate(cells):
        if number in alone:
            lists.append([class_name(cell)] if cell else [])
            continue
        parts = _bracketed(cell) if separator == "[" else _parts(cell, separator)
        lists.append([class_name(part) for part in parts or ()])
    _check(table, cells, lists, whole, spaces=separator == " ")
    return lists


def _kinds(table: LabelTable, number: int, cell: str) -> set[str]:
    """Returns the separators that occur in a cell, or `[` for a list in brackets."""
    if cell[0] in "[{" or cell[0] == "(" and cell[-1] == ")":
        if _bracketed(cell) is None:
            raise table.error(
                number,
                f"{cell!r:.200} begins with {cell[0]!r} and is no list of names in quotes, of JSON "
                "or of Python",
            )
        return {"["}
    return {separator for separator in SEPARATORS if separator in cell}


def _found(table: LabelTable, cells: Sequence[str], kinds: dict[int, set[str]]) -> str:
    """Returns the separator that is the same throughout."""
    first: dict[str, int] = {}
    for number, found in kinds.items():
        for kind in sorted(found):
            first.setdefault(kind, number)
    if "[" in first:
        plain = [number for number, found in kinds.items() if "[" not in found]
        if plain:
            raise table.error(
                max(plain[0], first["["]),
                f"line {table.lines[plain[0]]} has {cells[plain[0]]!r:.80} and line "
                f"{table.lines[first['[']]} a list in brackets '['; write all rows alike",
            )
    if len(first) > 1:
        (one, _), (other, number) = sorted(first.items(), key=lambda item: item[1])[:2]
        raise table.error(
            number,
            f"{cells[number]!r:.200} holds {other!r}, and {one!r} separates names since line "
            f"{table.lines[first[one]]}; write all rows alike, or say separator={one!r}",
        )
    return next(iter(first), " ")


def _parts(cell: str, separator: str) -> list[str]:
    if separator == " ":
        return cell.split()
    # Many programs end a list by a separator.
    return cell.removesuffix(separator).split(separator)


def _bracketed(cell: str) -> list[str] | None:
    """Returns the items of a list in brackets as text, or None if it is none."""
    if not _LIST.fullmatch(cell):
        return None
    try:
        items = json.loads(cell)
    except ValueError:
        try:
            items = ast.literal_eval(cell)
        except (ValueError, SyntaxError):
            return None
    # One item in round brackets, without a comma.
    items = [items] if isinstance(items, str | int) else items or ()
    return [str(item) for item in items]


def _check(
    table: LabelTable,
    cells: Sequence[str],
    lists: Sequence[Sequence[str]],
    known: set[str],
    *,
    spaces: bool,
) -> None:
    names = {name for listed in lists for name in listed} | known
    for number, listed in enumerate(lists):
        if len(set(listed)) < len(listed) and names <= _VALUES:
            raise table.error(
                number,
                f"{cells[number]!r:.200} holds a value for each class, expected the names of "
                "those that are present; make a column of each class",
            )
        for name in listed:
            words = name.split()
            if len(words) > 1 and names.issuperset(words) and (spaces or name not in known):
                raise table.error(
                    number,
                    f"{name!r} may be one class or the {len(words)} classes {', '.join(words)}; "
                    "separate all names by ',', ';' or '|', or give class_names",
                )
            if name in known:
                continue
            if not name:
                raise table.error(number, f"{cells[number]!r:.200} lists a name that is blank")
            if odd := [c for c in "[]{}" if c in name] or [c for c in "\"'" if name[0] == c]:
                raise table.error(
                    number,
                    f"the name {name!r:.80} in {cells[number]!r:.200} holds {odd[0]}, and the "
                    "cell is no list of JSON or of Python",
                )
            if odd := [c for c in _FOREIGN if c in name]:
                raise table.error(
                    number,
                    f"the name {name!r:.80} holds {odd[0]!r}; separate names by ',', ';' or '|', "
                    "or give class_names if it is one name",
                )
            if name in _MISSING or not set(name) - set(string.punctuation):
                raise table.error(
                    number,
                    f"{cells[number]!r:.200} lists {name!r}, which is no name; leave the cell "
                    "empty if no class is present, or give class_names if it is one",
                )
