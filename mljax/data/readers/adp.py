"""The Atlas of Digital Pathology: histological tissue types of 17,668 patches, in three levels.

Hosseini et al., "Atlas of Digital Pathology: A Generalized Hierarchical Histological Tissue
Type-Annotated Database for Deep Learning", CVPR 2019, https://www.dsp.utoronto.ca/projects/ADP/.
The release's folder, as mahdihosseini/KMCL src/datasets/ADPDataset.py reads it:

    ADP_EncodedLabels_Release1_Flat.csv    Patch Names,E,E.M,E.M.S,...: 1 or 0
    img_res_1um_bicubic/001.png_crop_16.png
    splits/train.npy, valid.npy, test.npy  numbers of rows of the CSV file, from 0

A dot separates levels: `E.M.S` is a kind of `E.M`, which is a kind of `E`. The first letters are
epithelial, connective proper, hematopoietic, skeletal, adipose, muscular and nervous tissue,
glands and transport vessels.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from mljax.data.files.folders import Listings
from mljax.data.files.label_table import LabelTable, read_label_table
from mljax.data.files.npy import read_npy
from mljax.data.records import Records

CSV_NAME = "ADP_EncodedLabels_Release1_Flat.csv"
IMAGE_FOLDER = "img_res_1um_bicubic"

# KMCL's normalization of ADP, of images in [0, 1].
MEAN = (0.81233799, 0.64032477, 0.81902153)
STD = (0.18129702, 0.25731668, 0.16800649)

LEVELS = {
    "L1": "E C H S A M N G T",
    "L2": "E E.M E.T C C.D C.L H H.E H.K H.Y S S.M S.C S.R A A.W A.M M N N.P N.R N.G G G.O G.N T",
    "L3": "E E.M E.M.S E.M.C E.T E.T.S E.T.C C C.D C.D.I C.D.R C.L H H.E H.K H.Y S S.M S.C S.R "
    "A A.W A.M M N N.P N.R N.G N.G.M G G.O G.N T",
    "L3Only": "E.M.S E.M.C E.T.S E.T.C C.D.I C.D.R C.L H.E H.K H.Y S.M S.C S.R A.W A.M M "
    "N.P N.R N.G.M G.O G.N T",
}
"""The classes of each level: 9, 26 and 33, each with those above it, and the 22 finest ones."""


def adp(split: str, *, root: str | Path, level: str = "L1") -> Records:
    """Reads one split; patches without any class of the level are left out, as in KMCL.

    KMCL trains on `train` and evaluates on `test`, with `L1` and the normalization `MEAN`, `STD`.

    Args:
      split: `train`, `valid` or `test`.
      root: the release's folder, in the original `ADP V1.0 Release`.
      level: a name in `LEVELS`.

    Raises:
      ValueError: for an unknown level, a missing file, image or class, a malformed or repeated row,
        a split without any patch; the message names the file and the line.
    """
    if level not in LEVELS:
        raise ValueError(f"level: got {level!r}, expected one of {', '.join(LEVELS)}")
    root = Path(root)
    table = read_label_table(root / CSV_NAME, "Patch Names")
    split_path = root / "splits" / f"{split}.npy"
    table = table.take(_row_numbers(split_path, table))
    names = tuple(LEVELS[level].split())
    labels = table.labels(table.columns(names))
    kept = np.flatnonzero(labels.any(axis=1))
    if not len(kept):
        raise ValueError(
            f"{split_path}: none of the {len(labels)} patches of the split {split!r} has a class "
            f"of level {level}"
        )
    images = table.take(kept).image_paths(0, root / IMAGE_FOLDER)
    return Records(images=images, labels=labels[kept], class_names=names)


def _row_numbers(path: Path, table: LabelTable) -> Int[np.ndarray, " n"]:
    """Returns the rows of a split."""
    if not path.is_file():
        files = [name for name in Listings().files(path.parent) if not name.startswith(".")]
        splits = [name.removesuffix(".npy") for name in files if name.endswith(".npy")]
        raise ValueError(
            f"{path}: no such file; the splits are {', '.join(splits) or 'missing'}, got "
            f"{path.stem!r}"
        )
    rows = read_npy(path, "a list of row numbers")
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(
            f"{path}: got {rows.dtype} of shape {rows.shape}, expected a list of row numbers"
        )
    outside = np.flatnonzero((rows < 0) | (rows >= len(table.rows)))
    if len(outside):
        raise ValueError(
            f"{path}, entry {outside[0]}: got row {rows[outside[0]]}, but {table.path} has the "
            f"rows 0 to {len(table.rows) - 1}"
        )
    again = np.setdiff1d(np.arange(len(rows)), np.unique(rows, return_index=True)[1])
    if len(again):
        raise ValueError(f"{path}, entry {again[0]}: row {rows[again[0]]} is listed twice")
    return rows
