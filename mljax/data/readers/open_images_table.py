"""OpenImages V6 as Alibaba-MIIL redistributes it: one table, images made smaller.

Ben-Baruch et al., https://arxiv.org/abs/2110.10955; Alibaba-MIIL/PartialLabelingCSL OpenImages.md,
which offers archives of images (short side 256 pixels), `data.csv` and `mid_to_classes.pth` and
describes neither. The columns read here are those that programs of others read
(hassan-mahmood/UMLLAttacks utils/oi_annot.py), by position:

    first     the image's path, under the folder of the images
    second    the MIDs of the classes that are present, as "['/m/01g317', '/m/0199g']"
    third     the MIDs of the classes that are absent, alike
    last      the split: `train` (5.65 million rows) or `val` (115 thousand)

Class names and the order of labels come from Google's own files, as in `open_images`.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mljax.data.files.image_paths import ImagePaths, present_images
from mljax.data.files.label_table import read_rows
from mljax.data.files.names import check_file_name
from mljax.data.files.text import separator_note
from mljax.data.readers.open_images import DESCRIPTIONS, TRAINABLE, chosen_classes, class_names_of
from mljax.data.records import Records
from mljax.data.sparse_labels import SparseLabels

# Paths that wait as Python objects to become an array.
_CHUNK = 2**16
# All paths are stored in the width of the longest.
_MAX_NAME = 1024


def open_images_table(
    split: str,
    *,
    root: str | Path,
    table: str = "data.csv",
    image_folder: str | Path = ".",
    classes: str | Path | Sequence[str] = TRAINABLE,
    keep_unannotated: bool = False,
    missing_images: str = "fail",
    mids_as_names: bool = False,
) -> Records:
    """Reads one split of the redistributed OpenImages V6.

    A class in both lists of an image is present.

    Args:
      split: `train` or `val`.
      root: the folder of the table, the class descriptions and the list of classes.
      table: the table's name.
      image_folder: what the table's paths are relative to, under `root`.
      classes: MIDs in label order, or the file under `root` that lists them.
      keep_unannotated: also keep images without any annotation of the classes.
      missing_images: `fail`, `skip` or `unchecked`, as for `open_images`.
      mids_as_names: name the classes by their MIDs.

    Raises:
      ValueError: if a file, an image or a class is missing, or for a malformed row; the message
        names the file and the line.
    """
    root = Path(root)
    known = class_names_of(root / DESCRIPTIONS)
    mids = chosen_classes(root, classes, known)
    names, labels = _read(root / table, split, known, mids)
    chosen = np.arange(len(names))
    if not keep_unannotated:
        chosen = np.flatnonzero(labels.annotations() > 0)
    images = ImagePaths(names[chosen], root / image_folder)
    there = present_images(images, missing_images)
    return Records(
        images=images.take(there),
        labels=labels.take(chosen[there]),
        class_names=mids if mids_as_names else tuple(known[mid] for mid in mids),
    )


def _read(
    path: Path, split: str, known: dict[str, str], mids: tuple[str, ...]
) -> tuple[np.ndarray, SparseLabels]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the redistributed table of OpenImages")
    column_of = dict.fromkeys(known, -1) | {mid: column for column, mid in enumerate(mids)}
    chunks, names, splits = [], [], set()
    starts, columns, present = array("q", [0]), array("i"), array("b")
    numbered = read_rows(path, strict=False)
    _, header = next(numbered, (1, [""]))
    note = separator_note(header[0]) if header else ""
    for line, row in numbered:
        if not row:
            continue
        if len(row) < 4 or not row[0].strip():
            raise ValueError(
                f"{path}, line {line}: got {len(row)} cells, expected at least a path, the classes "
                f"present, the classes absent and the split{note}"
            )
        splits.add(row[-1])
        if row[-1] != split:
            continue
        for value, cell in ((1, row[1]), (0, row[2])):
            for mid in _listed(cell):
                if mid not in column_of:
                    raise ValueError(
                        f"{path}, line {line}: unknown class {mid!r:.200}; it is not in "
                        f"{DESCRIPTIONS}"
                    )
                if column_of[mid] >= 0:
                    columns.append(column_of[mid])
                    present.append(value)
        starts.append(len(columns))
        names.append(check_file_name(row[0], f"{path}, line {line}").encode())
        if len(names[-1]) > _MAX_NAME:
            raise ValueError(
                f"{path}, line {line}: the path has {len(names[-1])} bytes, expected at most "
                f"{_MAX_NAME}"
            )
        if len(names) == _CHUNK:
            chunks.append(np.array(names))
            names = []
    if names:
        chunks.append(np.array(names))
    if not chunks:
        raise ValueError(f"{path}: no row is of split {split!r}; there are {sorted(splits)}")
    labels = SparseLabels(
        np.frombuffer(starts, np.int64),
        np.frombuffer(columns, np.int32),
        np.frombuffer(present, np.int8) == 1,
        num_classes=len(mids),
    )
    images = np.concatenate(chunks)
    in_order = np.sort(images)
    repeated = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(repeated):
        raise ValueError(
            f"{path}: the image {repeated[0].decode()!r} stands in two rows of the split {split!r}"
        )
    return images, labels


def _listed(cell: str) -> list[str]:
    """Returns the MIDs of a list as text; quotes may be there or not."""
    parts = (part.strip(" '\"") for part in cell.strip(" []").split(","))
    # pandas writes `nan` for a cell that was empty.
    return [part for part in parts if part not in ("", "nan")]
