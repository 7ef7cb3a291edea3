"""VG500: the 500 most frequent categories of Visual Genome, by the lists of SSGRL.

Chen et al., "Learning Semantic-Specific Graph Representation for Multi-Label Image Recognition",
https://arxiv.org/abs/1908.07325; Krishna et al., "Visual Genome", https://arxiv.org/abs/1602.07332.
82,904 images to train, 10,000 to test:

    train_list_500.txt, test_list_500.txt    an image a line: 2328403.jpg
    vg_category_500_labels_index.json        {"2328403.jpg": [137, 99, ...], ...}
    VG_100K, VG_100K_2                       the images of Visual Genome

AAM's code ships the same splits in the form of `json_lists`.
"""

from pathlib import Path

import numpy as np

from mljax.data.files.folders import Listings, one_row_each, split_names
from mljax.data.files.image_paths import present_images
from mljax.data.files.names import check_file_name
from mljax.data.files.text import read_json, read_lines
from mljax.data.records import Records

NUM_CLASSES = 500
LABELS = "vg_category_500_labels_index.json"
_FOLDERS = ("VG_100K", "VG_100K_2", "images", "")


def vg500(
    split: str, *, root: str | Path, num_classes: int = NUM_CLASSES, missing_images: str = "fail"
) -> Records:
    """Reads one split. The classes are the numbers from 0 to 499: the lists have no names.

    Args:
      split: `train` or `test`.
      root: the folder of the lists and of the image folders. An image may lie in any of them, in
        `images` or in the folder itself.
      num_classes: how many classes there are.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look, and takes a missing one for one of `VG_100K`.

    Raises:
      ValueError: if a file, an image or the labels of one are missing, for what is no class number,
        or an image that is listed twice; the message names the file, and the line or the image.
    """
    root = Path(root)
    path, labels_path = root / f"{split}_list_500.txt", root / LABELS
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected an image a line; {split_names([path], split)}"
        )
    if not labels_path.is_file():
        raise ValueError(f"{labels_path}: no such file; expected the class numbers of each image")
    indices = read_json(labels_path)
    if not isinstance(indices, dict):
        raise ValueError(f"{labels_path}: expected {{image: [class numbers]}}")
    lines = [line.strip() for line in read_lines(path)]
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
    labels = np.zeros((len(numbered), num_classes), np.int8)
    listings, paths = Listings(), []
    for row, (number, name) in enumerate(numbered):
        where = f"{path}, line {number}"
        check_file_name(name, where)
        if name not in indices:
            raise ValueError(f"{where}: {labels_path} has no labels of the image {name!r:.80}")
        labels[row, _columns(indices[name], num_classes, f"{labels_path}, image {name}")] = 1
        candidates = [root / folder / name for folder in _FOLDERS]
        paths.append(str(next(filter(listings.has, candidates), candidates[0])))
    one_row_each(paths, [f"line {number}" for number, _ in numbered], str(path))
    there = present_images(paths, missing_images)
    return Records(
        images=[paths[row] for row in there],
        labels=labels[there],
        class_names=tuple(map(str, range(num_classes))),
    )


def _columns(listed: object, num_classes: int, where: str) -> list[int]:
    if not isinstance(listed, list):
        raise ValueError(f"{where}: got {listed!r:.80}, expected a list of class numbers")
    for value in listed:
        # The type itself: True is an int.
        if type(value) is not int or not 0 <= value < num_classes:
            raise ValueError(
                f"{where}: got the class {value!r:.80}, expected a whole number from 0 to "
                f"{num_classes - 1}"
            )
    return listed
