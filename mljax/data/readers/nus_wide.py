r"""NUS-WIDE with its 81 concepts, in the files of its release.

Chua et al., "NUS-WIDE: A Real-World Web Image Database from National University of Singapore",
CIVR 2009. The release's own split has 161,789 images to train and 107,859 to test:

    Groundtruth/TrainTestLabels/Labels_airport_Train.txt    1 or 0, a line an image
    ImageList/TrainImagelist.txt                            a line an image: actor\0001_21244.jpg
    ConceptsList/Concepts81.txt                             a line a concept
    Flickr/actor/0001_21244.jpg                             the images, of which many are gone

ASL (and after it Query2Label and AAM) trains on another split, 119,103 and 50,720 images: those
with a label that still were on Flickr, mixed and divided anew. It is published as lists of its own,
which `csv` and `json_lists` read.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int8

from mljax.data.files.folders import Listings, one_row_each, split_names
from mljax.data.files.image_paths import present_images
from mljax.data.files.names import check_class_names, check_file_name
from mljax.data.files.text import read_lines
from mljax.data.records import Records

_LABELS = "Groundtruth/TrainTestLabels"


def nus_wide(
    split: str,
    *,
    root: str | Path,
    image_root: str = "Flickr",
    keep_unlabeled: bool = False,
    missing_images: str = "fail",
) -> Records:
    r"""Reads one split of the release; the concepts are sorted by name, as in its list.

    Args:
      split: `train` or `test`.
      root: the folder of `Groundtruth`, `ImageList` and `ConceptsList`; without the last one, the
        concepts are those of the files in `Groundtruth`.
      image_root: the folder of the images under `root`. `\` in the lists separates folders.
      keep_unlabeled: also keep images without any concept: every fifth.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look.

    Raises:
      ValueError: if a file or an image is missing, for files of other lengths, a label that is
        neither 1 nor 0, an image that is listed twice; the message names the file and the line.
    """
    root, ending = Path(root), split.capitalize()
    list_path = root / "ImageList" / f"{ending}Imagelist.txt"
    if not list_path.is_file():
        raise ValueError(
            f"{list_path}: no such file; expected an image a line; "
            f"{split_names([list_path], ending)}"
        )
    images = [(number, line) for number, line in enumerate(_lines(list_path), 1) if line]
    names = _concepts(root, ending)
    labels = np.empty((len(images), len(names)), np.int8)
    for column, name in enumerate(names):
        labels[:, column] = _labels(root / _LABELS / f"Labels_{name}_{ending}.txt", len(images))
    paths = []
    for number, line in images:
        file_name = check_file_name(line.replace("\\", "/"), f"{list_path}, line {number}")
        paths.append(str(root / image_root / file_name))
    one_row_each(paths, [f"line {number}" for number, _ in images], str(list_path))
    kept = np.flatnonzero(labels.any(axis=1) | keep_unlabeled)
    if not len(kept):
        raise ValueError(
            f"{root / _LABELS}: none of the {len(paths)} images of the split {split!r} has a "
            "concept; keep_unlabeled=True reads them"
        )
    there = kept[present_images([paths[row] for row in kept], missing_images)]
    if not len(there):
        raise ValueError(
            f"{root / image_root}: there is none of the {len(kept)} images of the split {split!r}, "
            f"such as {paths[kept[0]]}"
        )
    return Records(images=[paths[row] for row in there], labels=labels[there], class_names=names)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_lines(path)]


def _concepts(root: Path, ending: str) -> tuple[str, ...]:
    path = root / "ConceptsList" / "Concepts81.txt"
    if path.is_file():
        return check_class_names(sorted(filter(None, _lines(path))), str(path))
    before, after = "Labels_", f"_{ending}.txt"
    found = [
        name.removeprefix(before).removesuffix(after)
        for name in Listings().files(root / _LABELS)
        if name.startswith(before) and name.endswith(after)
    ]
    return check_class_names(sorted(found), f"{root / _LABELS}, {before}*{after}")


def _labels(path: Path, count: int) -> Int8[np.ndarray, " n"]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected 1 or 0 for each image, a line each")
    lines = _lines(path)
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if line not in ("0", "1"):
            raise ValueError(f"{path}, line {number}: got {line!r:.80}, expected 1 or 0")
    if len(lines) != count:
        raise ValueError(
            f"{path}: got {len(lines)} lines, expected {count}, one for each image of the split"
        )
    return np.array(lines, np.int8)
