"""LVIS v1: `lvis_v1_{split}.json` and COCO's image folders.

Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation",
https://arxiv.org/abs/1908.03195. For each image some of the 1,203 classes are annotated (present),
and some are verified to be absent (`neg_category_ids`); nobody looked for the others.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mljax.data.files.image_paths import present_images
from mljax.data.records import Records
from mljax.data.sparse_labels import SparseLabels


def lvis(
    split: str,
    *,
    root: str | Path,
    annotations: str | Path | None = None,
    image_root: str | Path | None = None,
    missing_images: str = "fail",
) -> Records:
    """Reads one split of LVIS v1, with the images and the classes in the file's order.

    A class is present (1) where an object of it is annotated, absent (0) where the image lists it
    in `neg_category_ids`, unannotated (-1) otherwise. `not_exhaustive_category_ids` says that some
    objects of a class are not outlined: that makes no difference to a class with an annotated
    object, and leaves one without unannotated.

    Args:
      split: `train` or `val`, or whatever stands in the file's name.
      root: the folder of the annotations.
      annotations: the file under `root`; None looks for `lvis_v1_{split}.json` there and in
        `annotations/`.
      image_root: the folder of COCO's `train2017` and `val2017`, which an image's `coco_url`
        chooses between (the images of a split lie in both); None takes `root`.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look.

    Raises:
      ValueError: if a file, an image or a field is missing, or for a class or an image that the
        file does not define, or a class that is both present and absent.
    """
    path = _annotation_file(Path(root), split, annotations)
    names, files, labels = _parse(path)
    folder = Path(root if image_root is None else image_root)
    paths = [str(folder / file) for file in files]
    there = present_images(paths, missing_images)
    return Records(
        images=[paths[row] for row in there], labels=labels.take(there), class_names=names
    )


def _annotation_file(root: Path, split: str, annotations: str | Path | None) -> Path:
    name = f"lvis_v1_{split}.json"
    candidates = [root / name, root / "annotations" / name]
    if annotations is not None:
        candidates = [root / annotations]
    for path in candidates:
        if path.is_file():
            return path
    raise ValueError(f"no LVIS annotations: expected {' or '.join(map(str, candidates))}")


def _parse(path: Path) -> tuple[tuple[str, ...], list[str], SparseLabels]:
    """Returns the class names, and the file and the labels of each image."""
    try:
        content = json.loads(path.read_bytes(), object_hook=_shrink)
        names = tuple(category["name"] for category in content["categories"])
        column_of = {category["id"]: c for c, category in enumerate(content["categories"])}
        images, present = content["images"], content["annotations"]
        row_of = {image["id"]: row for row, image in enumerate(images)}
        files = [_file(path, image) for image in images]
        absent = [(image["id"], c) for image in images for c in image["neg_category_ids"]]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    except KeyError as error:
        raise ValueError(f"{path}: not in the format of LVIS, field {error} is missing") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not in the format of LVIS ({error})") from None
    if not all(isinstance(pair, tuple) for pair in present):
        raise ValueError(f"{path}: an annotation lacks image_id or category_id")
    if len(column_of) < len(names) or len(row_of) < len(images):
        raise ValueError(f"{path}: the id of a category or an image occurs twice")
    pairs = [*present, *absent]
    for image, category in pairs:
        if image not in row_of or category not in column_of:
            raise ValueError(
                f"{path}: image {image} has category {category}, which are not both in the file"
            )
    if both := set(present) & set(absent):
        image, category = min(both)
        raise ValueError(f"{path}: category {category} is both present and absent in image {image}")
    labels = SparseLabels.from_annotations(
        np.array([row_of[image] for image, _ in pairs], np.int32),
        np.array([column_of[category] for _, category in pairs], np.int32),
        np.arange(len(pairs)) < len(present),
        shape=(len(images), len(names)),
    )
    return names, files, labels


def _shrink(thing: dict[str, Any]) -> Any:  # noqa: ANN401
    """Makes a pair of an annotation while the file is parsed: its outline is most of the file."""
    if "image_id" in thing and "category_id" in thing:
        return thing["image_id"], thing["category_id"]
    return thing


def _file(path: Path, image: dict[str, Any]) -> str:
    parts = image["coco_url"].rsplit("/", 2)
    if len(parts) < 3:
        raise ValueError(
            f"{path}: image {image['id']} has the coco_url {image['coco_url']!r}, expected it to "
            "end in /FOLDER/FILE"
        )
    return f"{parts[1]}/{parts[2]}"
