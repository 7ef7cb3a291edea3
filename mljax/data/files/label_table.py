"""CSV files with a row an image and columns of labels, checked line by line."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from mljax.data.files.folders import Listings
from mljax.data.files.names import class_name
from mljax.data.files.text import read_lines, separator_note

# pandas writes 1.0 where a column once had a gap.
ABSENT_PRESENT = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


@dataclass(frozen=True)
class LabelTable:
    """The cells of a CSV file, and the line of the file that each row begins in.

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
                        f"{', '.join(map(str, sorted(set(meaning.values()))))}",
                    )
                labels[number, at] = meaning[value]
        return labels

    def image_paths(self, column: int, folder: Path, suffix: str = "") -> list[str]:
        """Returns the paths of the images named in a column, each of which exists.

        Names are relative to the folder, in which there may be others, or absolute.
        """
        listings = Listings()
        first_row: dict[str, int] = {}
        paths = []
        for number, row in enumerate(self.rows):
            name = row[column].strip() + suffix
            path = listings.find([folder], name)
            if path is None:
                raise self.error(number, f"there is no image file {folder / name}")
            earlier = first_row.setdefault(os.path.normpath(path), number)
            if earlier != number:
                raise self.error(
                    number, f"{name} is already in line {self.lines[earlier]}; keep one of them"
                )
            paths.append(path)
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
      ValueError: for a missing file, one that is not UTF-8 or has no row, cells that are not
        separated by commas, a header that begins otherwise or names a column twice, a quote that is
        not closed, or a row of another length than the header; the message names the file and the
        line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a CSV file with a row an image")
    numbered = read_rows(path)
    _, cells = next(numbered, (1, []))
    header = tuple(class_name(name) for name in cells)
    if header and (note := separator_note(header[0])):
        raise ValueError(f"{path}, line 1: got the header {','.join(header)[:80]!r}{note}")
    if first_column not in (None, *header[:1]):
        raise ValueError(
            f"{path}, line 1: got the header {','.join(header)[:80]!r}, expected one that begins "
            f"with {first_column!r}"
        )
    if not header:
        raise ValueError(f"{path}, line 1: there is no header")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}, line 1: a column occurs twice: {', '.join(map(repr, repeated))}")
    rows, lines = [], []
    for line, row in numbered:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: got {len(row)} cells, expected {len(header)} as in the "
                "header"
            )
        rows.append(row)
        lines.append(line)
    if not rows:
        raise ValueError(f"{path}: there is no row below the header, so no image to read")
    return LabelTable(path, header, rows, lines)


def read_rows(path: Path, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV file, each with the line that it begins in; one is in memory.

    Args:
      path: of the file.
      strict: whether quotes have to end where their cells do.

    Raises:
      ValueError: for a file that is not UTF-8 or whose quotes do not fit; it names the line.
    """
    reader = csv.reader(read_lines(path), strict=strict)
    line = 1
    try:
        for row in reader:
            yield line, row
            # A quoted cell may hold line ends.
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {line}: a quote is not closed where its cell ends ({error})"
        ) from None
