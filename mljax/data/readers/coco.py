"""COCO folders: `annotations/instances_{split}{year}.json` and `{split}{year}/`.

Lin et al., "Microsoft COCO", https://arxiv.org/abs/1405.0312. A class is present where at least
one object of it is annotated, crowds included, as in Alibaba-MIIL/ASL helper_functions.py.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mljax.data.records import Records

_YEARS = (2014, 2017)

# Ids, or the file that lists them.
_Ids = Sequence[int] | str | Path


def coco(
    split: str,
    *,
    root: str | Path,
    year: int | None = None,
    keep_unannotated: bool = False,
    image_ids: _Ids | Mapping[str, _Ids] | None = None,
) -> Records:
    """Reads one split of a COCO folder.

    The classes are the file's `categories`, in its order.

    Args:
      split: `train` or `val`, or whatever precedes the year in the names.
      root: the folder that holds `annotations`.
      year: 2014 or 2017; None takes the one that is there.
      keep_unannotated: False leaves out images without any object, in the order of first
        appearance among the annotations (as ASL, CSL and KMCL do); True keeps every image, in the
        order of the file's `images`.
      image_ids: the ids to keep, in this order; or a text file of them, one a line, in integer or
        in floating-point notation. None keeps all. A config, whose training split alone is a
        subset, gives `{"train": file}`; then the other splits keep all.

    Raises:
      ValueError: if a file, an image or a field is missing, or an id is unknown.
    """
    path = _annotation_file(split, Path(root), year)
    if isinstance(image_ids, Mapping):
        for name in image_ids:
            # A misspelled split must not pass for one that keeps all.
            _annotation_file(name, Path(root), year)
        image_ids = image_ids.get(split)
    names, columns, files, pairs = _parse(path)
    ids = list(files) if keep_unannotated else list(dict.fromkeys(pairs[:, 0].tolist()))
    if image_ids is not None:
        ids = _select(ids, image_ids, path)

    labels = np.zeros((len(ids), len(names)), np.int8)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    rows = np.array([row_of.get(image_id, -1) for image_id in pairs[:, 0].tolist()], np.int64)
    chosen = rows >= 0
    labels[rows[chosen], [columns[category] for category in pairs[chosen, 1].tolist()]] = 1

    folder = Path(root) / path.stem.removeprefix("instances_")
    images = _image_paths(folder, [files[image_id] for image_id in ids])
    return Records(images=images, labels=labels, class_names=names)


def _annotation_file(split: str, root: Path, year: int | None) -> Path:
    years = _YEARS if year is None else (year,)
    candidates = [root / "annotations" / f"instances_{split}{number}.json" for number in years]
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{root} holds both COCO 2014 and 2017: say which by year=2014 or 2017")
    if not found:
        raise ValueError(f"no COCO annotations: expected {' or '.join(map(str, candidates))}")
    return found[0]


def _parse(path: Path) -> tuple[tuple[str, ...], dict[int, int], dict[int, str], np.ndarray]:
    """Returns class names, {category id: column}, {image id: file}, and `[n, 2]` id pairs."""
    try:
        content = json.loads(path.read_bytes(), object_hook=_without_outlines)
        names = tuple(category["name"] for category in content["categories"])
        columns = {c["id"]: column for column, c in enumerate(content["categories"])}
        files = {image["id"]: image["file_name"] for image in content["images"]}
        flat = [(note["image_id"], note["category_id"]) for note in content["annotations"]]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    except KeyError as error:
        raise ValueError(f"{path}: not in COCO's format, field {error} is missing") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not in COCO's format ({error})") from None
    if len(set(names)) < len(names) or len(columns) < len(names):
        raise ValueError(f"{path}: a category's name or id occurs twice")
    if len(files) < len(content["images"]):
        raise ValueError(f"{path}: an image's id occurs twice")
    for image_id, category_id in flat:
        if image_id not in files or category_id not in columns:
            raise ValueError(
                f"{path}: an annotation names image {image_id} and category {category_id}, "
                "which are not both in the file"
            )
    return names, columns, files, np.array(flat, np.int64).reshape(-1, 2)


def _without_outlines(thing: dict[str, Any]) -> dict[str, Any]:
    """Drops, while parsing, what makes up most of the file and most of its memory."""
    thing.pop("segmentation", None)
    return thing


def _select(known: list[int], wanted: _Ids, path: Path) -> list[int]:
    source, ids = "image_ids", wanted
    if isinstance(ids, str | Path):
        source, ids = str(wanted), _read_ids(Path(ids))
    missing = sorted(set(ids) - set(known))
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} ids, such as {missing[0]}, are not among the images of "
            f"{path} that are read; those without objects need keep_unannotated=True"
        )
    if len(set(ids)) < len(ids):
        raise ValueError(f"{source}: an image id occurs twice")
    return list(ids)


def _read_ids(path: Path) -> list[int]:
    if not path.is_file():
        raise ValueError(f"image_ids: there is no file {path}")
    try:
        # COCO's subsets for KMCL are lists in numpy's default notation, 5.782500000000000000e+05.
        values = [float(line) for line in path.read_text().split()]
        ids = [int(value) for value in values]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: expected one whole number a line ({error})") from None
    if ids != values:
        raise ValueError(f"{path}: expected one whole number a line")
    return ids


def _image_paths(folder: Path, files: list[str]) -> list[str]:
    if not folder.is_dir():
        raise ValueError(f"there is no image folder {folder}")
    # One listing instead of a question a file, which is slow on network disks.
    present = set(os.listdir(folder))
    missing = [name for name in files if name not in present]
    if missing:
        raise ValueError(
            f"{folder}: {len(missing)} of {len(files)} images are missing, such as {missing[0]}"
        )
    return [os.path.join(folder, name) for name in files]
