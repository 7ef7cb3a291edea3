"""Images and their labels as lists in one JSON file a split, as AAM's code ships its data sets.

Prokofiev and Sovrasov, "Combining Metric Learning and Attention Heads",
https://arxiv.org/abs/2209.06585; tosfaq/deep-object-reid. VOC 2007, COCO, NUS-WIDE and VG500 come
as

    train.json, val.json    {"images": [["images/1.jpg", ["cat", "dog"]], ...],
                             "classes": ["dog", "cat"]}

The paths are relative to the file's folder. A label is text, or a whole number, as in VG500.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mljax.data.files.folders import one_row_each, split_names
from mljax.data.files.image_paths import present_images
from mljax.data.files.names import Id, check_class_names, check_file_name, check_id, class_name
from mljax.data.files.text import read_json
from mljax.data.records import Records


def json_lists(
    split: str,
    *,
    root: str | Path,
    unknown_labels: bool = False,
    missing_images: str = "fail",
) -> Records:
    """Reads one split; images without a label are kept, and a label that is listed twice is one.

    The classes are sorted, whatever the order in the file: by name, numbers by value.

    Differs from the reference, which leaves out labels that are not among the classes without a
    word: here they are an error unless `unknown_labels`.

    Args:
      split: the name of the file without `.json`: `train` or `val`.
      root: the folder of the files.
      unknown_labels: leave out labels that are not among the classes.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look.

    Raises:
      ValueError: if a file or an image is missing, or the file is not of this form; for a class or
        a label that is none, an unknown label, an image that is listed twice; the message names
        the file, and the image by its number.
    """
    path = Path(root) / f"{split}.json"
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected the lists of a split; {split_names([path], split)}"
        )
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), list) for name in ("images", "classes")
    ):
        raise ValueError(f"{path}: expected the lists `images` and `classes`")
    column, names = _classes(content["classes"], path)
    paths, labels = [], np.zeros((len(content["images"]), len(names)), np.int8)
    for row, entry in enumerate(content["images"]):
        where = f"{path}, image {row}"
        name, listed = _entry(entry, where)
        paths.append(str(path.parent / name))
        for value in listed:
            label = _label(value, where)
            if label in column:
                labels[row, column[label]] = 1
            elif not unknown_labels:
                raise ValueError(
                    f"{where}: the label {value!r:.80} is none of the {len(names)} classes; "
                    "unknown_labels=True leaves such labels out"
                )
    one_row_each(paths, [f"image {row}" for row in range(len(paths))], str(path))
    there = present_images(paths, missing_images)
    return Records(images=[paths[row] for row in there], labels=labels[there], class_names=names)


def _classes(listed: list[Any], path: Path) -> tuple[dict[Id, int], tuple[str, ...]]:
    """Returns the column of each class and the names, both in label order."""
    ids = [_label(value, f"{path}: class {number}") for number, value in enumerate(listed)]
    if len({type(each) for each in ids}) > 1:
        raise ValueError(f"{path}: some classes are text, some are numbers; expected one of both")
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise ValueError(f"{path}: the class {twice!r:.80} occurs twice")
    ordered = sorted(ids)  # pyright: ignore[reportArgumentType]
    names = check_class_names([str(each) for each in ordered], f"{path}, classes")
    return {each: number for number, each in enumerate(ordered)}, names


def _label(value: Any, where: str) -> Id:  # noqa: ANN401
    label = check_id(value, where)
    return class_name(label) if isinstance(label, str) else label


def _entry(entry: Any, where: str) -> tuple[str, list[Any]]:  # noqa: ANN401
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], list):
        raise ValueError(f"{where}: got {entry!r:.80}, expected [path, [labels]]")
    return check_file_name(entry[0], where), entry[1]
