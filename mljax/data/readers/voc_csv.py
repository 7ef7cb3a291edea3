"""Pascal VOC's classification labels in the CSV form of multi-label research code.

mahdihosseini/KMCL src/datasets/VOC.py, where `root` is the folder `voc`:

    files/VOC2007/classification_trainval.csv    name,aeroplane,bicycle,...: 1, -1, or 0 (difficult)
    VOCdevkit/VOC2007/JPEGImages/000005.jpg

Without the CSV file the labels come from the lists of the devkit that it is made of:

    VOCdevkit/VOC2007/ImageSets/Main/aeroplane_trainval.txt    000005 -1

KMCL trains on `trainval` (5,011 images) and evaluates on `test` (4,952), scaled with the mean
(0.485, 0.456, 0.406) and the standard deviation (0.229, 0.224, 0.225).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mljax.data.files.folders import split_names
from mljax.data.files.label_table import LabelTable, read_label_table
from mljax.data.files.names import check_class_names
from mljax.data.files.text import read_lines
from mljax.data.readers.voc import VOC_CLASSES
from mljax.data.records import Records

_VALUES = {f"{value}{end}": value for value in (-1, 0, 1) for end in ("", ".0")}


def voc_csv(
    split: str, *, root: str | Path, year: int = 2007, class_names: Sequence[str] = VOC_CLASSES
) -> Records:
    """Reads one split.

    An image whose objects of a class are all difficult (0) has the class, and `ignored` is true as
    well: training counts it as present and metrics leave it out, as KMCL does. The original's
    splits `train`, `val` and `test` are `trainval`, `test` and `test` here.

    Args:
      split: part of the file name: `trainval` or `test`, or any other that has a file.
      root: the folder that holds `files` and `VOCdevkit`.
      year: part of the folder names.
      class_names: the classes in label order; the file may have its columns in any order.

    Raises:
      ValueError: for a missing file, image or class, a malformed or repeated row; the message names
        the file and the line.
    """
    devkit = Path(root) / "VOCdevkit" / f"VOC{year}"
    path = Path(root) / "files" / f"VOC{year}" / f"classification_{split}.csv"
    names = check_class_names(class_names, "class_names")
    if path.is_file():
        table = read_label_table(path, "name")
        unknown = sorted(set(table.header[1:]) - set(names))
        if unknown:
            raise ValueError(
                f"{path}, line 1: unknown class {', '.join(unknown)}; "
                f"the classes are {', '.join(names)}"
            )
        values = table.labels(table.columns(names), _VALUES)
        images = table.image_paths(0, devkit / "JPEGImages", ".jpg")
    else:
        lists = [_read_list(devkit / "ImageSets/Main" / f"{n}_{split}.txt", path) for n in names]
        _check_same_images(lists)
        if not lists[0].rows:
            raise ValueError(f"{lists[0].path}: the split {split!r} has no image")
        values = np.concatenate([one.labels([1], _VALUES) for one in lists], axis=1)
        images = lists[0].image_paths(0, devkit / "JPEGImages", ".jpg")
    labels, ignored = (values >= 0).astype(np.int8), values == 0
    return Records(images=images, labels=labels, class_names=names, ignored=ignored)


def _read_list(path: Path, csv_path: Path) -> LabelTable:
    """Returns the devkit's list of one class: lines of a name and a label."""
    if not path.is_file():
        split = csv_path.stem.removeprefix("classification_")
        raise ValueError(
            f"{path}: no such file, nor {csv_path}; one of them must hold the labels; "
            f"{split_names([csv_path, path], split)}"
        )
    rows, lines = [], []
    for number, text in enumerate(read_lines(path), 1):
        row = text.rsplit(maxsplit=1)
        if row and len(row) != 2:
            raise ValueError(
                f"{path}, line {number}: got {text.strip()!r}, expected a name and a label"
            )
        if row:
            rows.append(row)
            lines.append(number)
    return LabelTable(path, ("name", "label"), rows, lines)


def _check_same_images(lists: list[LabelTable]) -> None:
    first = [row[0] for row in lists[0].rows]
    for one in lists[1:]:
        names = [row[0] for row in one.rows]
        if names != first:
            unequal = [a != b for a, b in zip(names, first, strict=False)]
            row = unequal.index(True) if True in unequal else min(len(names), len(first))
            line = one.lines[row] if row < len(names) else one.lines[-1] + 1 if names else 1
            raise ValueError(
                f"{one.path}, line {line}: the images differ from those of {lists[0].path}"
            )
