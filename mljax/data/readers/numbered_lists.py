"""Images with the numbers of their labels in one JSON file a split, as ML-GCN prepares COCO.

Chen et al., https://arxiv.org/abs/1904.03582; megvii-research/ML-GCN coco.py writes, and
SonDaoDuy/MulCon reads

    data/train_anno.json, data/val_anno.json    [{"file_name": "1.jpg", "labels": [0, 2]}, ...]
    data/category.json                          {"airplane": 0, "apple": 1, ...}
    data/train2014/1.jpg

where the classes are numbered in alphabetical order, which is not that of COCO's own ids.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mljax.data.files.folders import one_row_each, split_names
from mljax.data.files.image_paths import present_images
from mljax.data.files.names import check_class_names, check_file_name
from mljax.data.files.text import read_json
from mljax.data.records import Records


def numbered_lists(
    split: str,
    *,
    root: str | Path,
    year: int | str = 2014,
    missing_images: str = "fail",
) -> Records:
    """Reads one split, in the order of the file; a label that is listed twice is one.

    The original's split `trainsplit` has the pictures of `train` here too.

    Args:
      split: what precedes `_anno.json`: `train` or `val`.
      root: the folder that holds `data`.
      year: what follows the split's name in the name of the folder of the pictures.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look.

    Raises:
      ValueError: if a file or an image is missing, or a file is not of this form; for a class
        without a name, numbers that are not those of the classes, or an image that is listed twice;
        the message names the file, and the image by its number.
    """
    folder = Path(root) / "data"
    path = folder / f"{split}_anno.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected the images of a split; {split_names([path], split)}"
        )
    names = _class_names(folder / "category.json")
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of images")
    pictures = folder / f"{'train' if split == 'trainsplit' else split}{year}"
    paths, labels = [], np.zeros((len(entries), len(names)), np.int8)
    for row, entry in enumerate(entries):
        name, listed = _entry(entry, f"{path}, image {row}", len(names))
        paths.append(str(pictures / name))
        labels[row, listed] = 1
    one_row_each(paths, [f"image {row}" for row in range(len(paths))], str(path))
    there = present_images(paths, missing_images)
    return Records(images=[paths[row] for row in there], labels=labels[there], class_names=names)


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the numbers of the classes")
    numbers = read_json(path)
    if not isinstance(numbers, dict) or not all(map(_is_number, numbers.values())):
        raise ValueError(f"{path}: expected a number for each name of a class")
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise ValueError(f"{path}: expected each number from 0 to {len(numbers) - 1} once")
    return check_class_names(sorted(numbers, key=numbers.__getitem__), str(path))


def _entry(entry: Any, where: str, classes: int) -> tuple[str, list[int]]:  # noqa: ANN401
    if not isinstance(entry, dict) or not isinstance(entry.get("labels"), list):
        raise ValueError(f"{where}: got {entry!r:.80}, expected a file_name and labels")
    for label in entry["labels"]:
        if not _is_number(label) or not 0 <= label < classes:
            raise ValueError(
                f"{where}: got the label {label!r:.80}, expected a number from 0 to {classes - 1}"
            )
    return check_file_name(entry.get("file_name"), where), entry["labels"]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
