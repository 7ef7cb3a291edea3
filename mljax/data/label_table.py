"""CSV files with a row an image and a column a class, checked line by line."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int8

# pandas writes 1.0 where a column once had a gap.
ABSENT_PRESENT = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True)
class LabelTable:
    """The cells of a CSV file, and the line of the file that each row ends in.

    Raises:
      ValueError: in every method, for what does not fit; the message names the file and the line.
    """

    path: Path
    header: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    def error(self, row: int, message: str) -> ValueError:
        """Returns the error of a row."""
        return ValueError(f"{self.path}, line {self.lines[row]}: {message}")

    def columns(self, names: Sequence[str]) -> list[int]:
        """Returns where the columns stand that have these names."""
        missing = [name for name in names if name not in self.header]
        if missing:
            raise ValueError(
                f"{self.path}, line 1: there is no column {', '.join(missing)}; "
                f"the columns are {', '.join(self.header)}"
            )
        return [self.header.index(name) for name in names]

    def labels(
        self, columns: Sequence[int], meaning: Mapping[str, int] = ABSENT_PRESENT
    ) -> Int8[np.ndarray, "n k"]:
        """Returns the labels of some columns; `meaning` says what each cell stands for."""
        labels = np.empty((len(self.rows), len(columns)), np.int8)
        for number, row in enumerate(self.rows):
            for at, column in enumerate(columns):
                value = row[column].strip()
                if value not in meaning:
                    raise self.error(
                        number,
                        f"{self.header[column]}: got {value!r}, expected one of "
                        f"{', '.join(sorted(set(meaning)))}",
                    )
                labels[number, at] = meaning[value]
        return labels

    def image_paths(self, column: int, folder: Path, suffix: str = "") -> list[str]:
        """Returns the paths of the images named in a column, each of which exists."""
        # One listing, since a question a file is slow on network disks.
        existing = set(os.listdir(folder)) if folder.is_dir() else set()
        first_row: dict[str, int] = {}
        paths = []
        for number, row in enumerate(self.rows):
            name = row[column].strip() + suffix
            earlier = first_row.setdefault(name, number)
            if earlier != number:
                raise self.error(number, f"{name} is already in line {self.lines[earlier]}")
            if name not in existing:
                raise self.error(number, f"there is no image file {folder / name}")
            paths.append(str(folder / name))
        return paths

    def take(self, rows: Sequence[int] | np.ndarray) -> "LabelTable":
        """Returns the table of some rows, in the order given."""
        return LabelTable(
            self.path,
            self.header,
            [self.rows[row] for row in rows],
            [self.lines[row] for row in rows],
        )


def read_label_table(path: Path, first_column: str | None = None) -> LabelTable:
    """Reads a CSV file with a header.

    Args:
      path: of the file.
      first_column: what the header must begin with, or None for anything.

    Raises:
      ValueError: for a missing file, a header that begins otherwise or names a column twice, or a
        row of another length than the header.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a CSV file with a row an image")
    # Spreadsheets put a byte order mark in front, which utf-8-sig removes.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = tuple(name.strip() for name in next(reader, []))
        if first_column not in (None, *header[:1]):
            raise ValueError(
                f"{path}, line 1: got {','.join(header)[:80]!r}, expected a header that begins "
                f"with {first_column!r}"
            )
        if len(set(header)) < len(header):
            raise ValueError(f"{path}, line 1: a column occurs twice in {', '.join(header)}")
        rows, lines = [], []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: got {len(row)} cells, expected "
                    f"{len(header)} as in the header"
                )
            rows.append(row)
            lines.append(reader.line_num)
    return LabelTable(path, header, rows, lines)
