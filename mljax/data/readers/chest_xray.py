"""ChestX-ray14: fourteen findings in 112,120 chest radiographs, in the CSV form that KMCL reads.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks",
https://arxiv.org/abs/1705.02315; mahdihosseini/KMCL src/datasets/XrayDataset.py:

    train_label.csv, val_label.csv, test_label.csv    FileName,Atelectasis,Cardiomegaly,...: 1 or 0
    images/images/00000001_000.png

The images are grey; decoded as RGB they have three equal channels, as in KMCL.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mljax.data.files.folders import split_names
from mljax.data.files.label_table import LabelTable, read_label_table
from mljax.data.files.names import check_class_names
from mljax.data.records import Records

# KMCL's normalization of ChestX-ray14, of images in [0, 1].
MEAN = (0.50576189, 0.50576189, 0.50576189)
STD = (1.0, 1.0, 1.0)

CHEST_XRAY_CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)


def chest_xray(
    split: str,
    *,
    root: str | Path,
    class_names: Sequence[str] | None = CHEST_XRAY_CLASSES,
    keep_without_finding: bool = False,
) -> Records:
    """Reads one split; images without any finding are left out, as in KMCL.

    KMCL trains on `train` and evaluates on `test`, with the normalization `MEAN`, `STD`.

    Differs from the reference, which uses only the first tenth of the rows that remain, in training
    as in evaluation; its published figures are for that tenth.

    Args:
      split: `train`, `val` or `test`.
      root: the folder of the CSV files.
      class_names: the classes in label order, found by the names of their columns, among which
        there may be others. None takes the second to the fifteenth column whatever they are called,
        as KMCL does.
      keep_without_finding: also read images without any finding, more than half of the data set.

    Raises:
      ValueError: for a missing file, image or class, a malformed or repeated row, a split without
        any image; the message names the file and the line.
    """
    root = Path(root)
    path = root / f"{split}_label.csv"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected a CSV file with a row an image; "
            f"{split_names([path], split)}"
        )
    table = read_label_table(path)
    if class_names is None:
        columns = _columns_by_position(table)
    else:
        columns = table.columns(check_class_names(class_names, "class_names"))
    names = check_class_names([table.header[column] for column in columns], f"{path}, line 1")
    labels = table.labels(columns)
    kept = np.flatnonzero(labels.any(axis=1) | keep_without_finding)
    if not len(kept):
        raise ValueError(
            f"{table.path}: none of the {len(labels)} images of the split {split!r} has a finding; "
            "keep_without_finding=True reads them"
        )
    images = table.take(kept).image_paths(0, root / "images" / "images")
    return Records(images=images, labels=labels[kept], class_names=names)


def _columns_by_position(table: LabelTable) -> range:
    columns = range(1, 1 + len(CHEST_XRAY_CLASSES))
    if len(table.header) < columns.stop:
        raise ValueError(
            f"{table.path}, line 1: got {len(table.header)} columns, expected the file name and "
            f"{len(columns)} findings"
        )
    return columns
