"""Images listed in a CSV file, with a column a class or a column of labels.

Two forms, told apart by the header. A column a class (1 present, 0 absent, -1 unannotated):

    image,desert,sea
    images/1.jpg,1,0

A column of labels; what is not listed is absent:

    image,labels
    images/1.jpg,desert sea

Spaces separate names unless the column holds one of `,` `;` `|`, which does then, or lists in
brackets, of JSON or Python: in these forms names may hold spaces. All rows are written alike. A
column `labels` that holds only 1, 0 and -1 is a column of the one class `labels`.

Image paths are relative to the CSV file's folder.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from mljax.data.files.folders import split_names
from mljax.data.files.label_lists import read_lists
from mljax.data.files.label_table import ABSENT_PRESENT, LabelTable, read_label_table
from mljax.data.files.names import check_class_names
from mljax.data.records import Records

_HEADER = ("image", "labels")
_VALUES = {**ABSENT_PRESENT, "-1": -1, "-1.0": -1}


def csv_table(
    split: str,
    *,
    root: str | Path,
    pattern: str = "{split}.csv",
    class_names: Sequence[str] | None = None,
    train_split: str = "train",
    separator: str | None = None,
) -> Records:
    """Reads one split from its CSV file.

    The classes and their order are the same for every split: `class_names`, or else those of the
    training split's file (in the order of its columns; in the other form, sorted).

    Args:
      split: what replaces `{split}` in `pattern`.
      root: the folder of the CSV files.
      pattern: the name of a split's CSV file.
      class_names: the classes in label order; all others in the file are an error.
      train_split: the split whose file decides the classes if `class_names` does not.
      separator: of names in a column of labels, `,` `;` `|` or a space; None finds it.

    Raises:
      ValueError: at a missing file or image, a file that is not UTF-8 or has no row, a malformed or
        repeated row, a value other than 1, 0 and -1, an unknown class, lists that are not written
        alike, a pattern that is none; the message names the file and the line.
    """
    table = _read(_path(root, pattern, split), split)
    if class_names is None:
        train_path = _path(root, pattern, train_split)
        train = table if train_path == table.path else _read(train_path, train_split)
        names = _class_names(train, separator)
    else:
        names = check_class_names(class_names, "class_names")
    if _has_lists(table) and not (names == _HEADER[1:] and _has_values(table)):
        labels = _labels_of_lists(table, names, separator)
    else:
        labels = _labels_of_columns(table, names)
    images = table.image_paths(0, table.path.parent)
    return Records(images=images, labels=labels, class_names=names)


def _path(root: str | Path, pattern: str, split: str) -> Path:
    try:
        return Path(root) / pattern.format(split=split)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"pattern: got {pattern!r} ({type(error).__name__} {error}), expected a file name with "
            "{split}"
        ) from None


def _read(path: Path, split: str) -> LabelTable:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected a CSV file with a row an image; "
            f"{split_names([path], split)}"
        )
    table = read_label_table(path, "image")
    if len(table.header) < 2 or "" in table.header:
        raise ValueError(
            f"{path}, line 1: got the header {','.join(table.header)!r}, expected "
            "`image,classA,classB,...` or `image,labels`"
        )
    return table


def _has_lists(table: LabelTable) -> bool:
    return table.header == _HEADER


def _has_values(table: LabelTable) -> bool:
    """Returns whether a column `labels` is that of a class of this name."""
    cells = {row[1].strip() for row in table.rows} - {""}
    return bool(cells) and cells <= _VALUES.keys()


def _class_names(table: LabelTable, separator: str | None) -> tuple[str, ...]:
    if not _has_lists(table) or _has_values(table):
        return check_class_names(table.header[1:], f"{table.path}, line 1")
    names = {label for listed in read_lists(table, 1, (), separator) for label in listed}
    if not names:
        raise ValueError(f"{table.path}: no row has a label, so there are no classes")
    return check_class_names(sorted(names), str(table.path))


def _labels_of_columns(table: LabelTable, names: tuple[str, ...]) -> Int8[np.ndarray, "n k"]:
    columns = table.header[1:]
    if set(columns) != set(names):
        raise ValueError(
            f"{table.path}, line 1: the classes differ from those of the training data; "
            f"missing: {sorted(set(names) - set(columns))}, "
            f"unknown: {sorted(set(columns) - set(names))}"
        )
    return table.labels(table.columns(names), _VALUES)


def _labels_of_lists(
    table: LabelTable, names: tuple[str, ...], separator: str | None
) -> Int8[np.ndarray, "n k"]:
    column = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(table.rows), len(names)), np.int8)
    for number, listed in enumerate(read_lists(table, 1, names, separator)):
        for label in listed:
            if label not in column:
                raise table.error(
                    number, f"unknown class {label!r}; the classes are {', '.join(names)}"
                )
            labels[number, column[label]] = 1
    return labels
