"""Images listed in a CSV file, with a column a class or a column of labels.

Two forms, told apart by the header. A column a class (1 present, 0 absent, -1 unannotated):

    image,desert,sea
    images/1.jpg,1,0

A column of labels, with spaces between them; what is not listed is absent:

    image,labels
    images/1.jpg,desert sea

Image paths are relative to the CSV file's folder.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mljax.data.records import Records

# pandas writes 1.0 where a column once had a gap.
_VALUES = {"1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}


def csv_table(
    split: str,
    *,
    root: str | Path,
    pattern: str = "{split}.csv",
    class_names: Sequence[str] | None = None,
    train_split: str = "train",
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

    Raises:
      ValueError: at a missing file or image, a malformed or repeated row, a value other than 1, 0
        and -1, an unknown class; the message names the file and the line.
    """
    table = _read(Path(root) / pattern.format(split=split))
    if class_names is None:
        train_path = Path(root) / pattern.format(split=train_split)
        train = table if train_path == table.path else _read(train_path)
        class_names = train.class_names()
    names = tuple(class_names)
    labels = table.labels_by_column(names) if table.columns else table.labels_by_list(names)
    return Records(images=table.image_paths(), labels=labels, class_names=names)


@dataclass(frozen=True)
class _Table:
    """The rows of a CSV file; `columns` are the classes, or None in the form with a list."""

    path: Path
    columns: tuple[str, ...] | None
    lines: list[int]
    rows: list[list[str]]

    def error(self, row: int, message: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.lines[row]}: {message}")

    def class_names(self) -> tuple[str, ...]:
        if self.columns:
            return self.columns
        return tuple(sorted({label for row in self.rows for label in row[1].split()}))

    def labels_by_column(self, names: tuple[str, ...]) -> np.ndarray:
        columns = self.columns or ()
        if set(columns) != set(names):
            raise ValueError(
                f"{self.path}, line 1: the classes differ from those of the training data; "
                f"missing: {sorted(set(names) - set(columns))}, "
                f"unknown: {sorted(set(columns) - set(names))}"
            )
        labels = np.empty((len(self.rows), len(columns)), np.int8)
        for number, row in enumerate(self.rows):
            try:
                labels[number] = [_VALUES[value.strip()] for value in row[1:]]
            except KeyError as error:
                raise self.error(
                    number, f"expected 1, 0 or -1 (unannotated) for each class, got {error}"
                ) from None
        return labels[:, [columns.index(name) for name in names]]

    def labels_by_list(self, names: tuple[str, ...]) -> np.ndarray:
        column = {name: number for number, name in enumerate(names)}
        labels = np.zeros((len(self.rows), len(names)), np.int8)
        for number, row in enumerate(self.rows):
            for label in row[1].split():
                if label not in column:
                    raise self.error(
                        number, f"unknown class {label!r}; the classes are {', '.join(names)}"
                    )
                labels[number, column[label]] = 1
        return labels

    def image_paths(self) -> list[str]:
        first_row: dict[str, int] = {}
        paths = []
        for number, row in enumerate(self.rows):
            path = self.path.parent / row[0]
            earlier = first_row.setdefault(str(path), number)
            if earlier != number:
                raise self.error(
                    number, f"{row[0]} is already in line {self.lines[earlier]}; keep one of them"
                )
            if not path.is_file():
                raise self.error(number, f"there is no image file {path}")
            paths.append(str(path))
        return paths


def _read(path: Path) -> _Table:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a CSV file with a header `image,...`")
    # Spreadsheets put a byte order mark in front, which utf-8-sig removes.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        if len(header) < 2 or header[0] != "image" or "" in header:
            raise ValueError(
                f"{path}, line 1: got the header {','.join(header)!r}, expected "
                "`image,classA,classB,...` or `image,labels`"
            )
        if len(set(header)) != len(header):
            raise ValueError(f"{path}, line 1: a class occurs twice in {header[1:]}")
        lines, rows = [], []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: got {len(row)} cells, expected "
                    f"{len(header)} as in the header"
                )
            lines.append(reader.line_num)
            rows.append(row)
    columns = None if header == ["image", "labels"] else tuple(header[1:])
    return _Table(path, columns, lines, rows)
