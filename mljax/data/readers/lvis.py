"""LVIS v1: `lvis_v1_{split}.json` and COCO's image folders.

Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation",
https://arxiv.org/abs/1908.03195. For each image some of the 1,203 classes are annotated (present),
and some are verified to be absent (`neg_category_ids`); nobody looked for the others.
"""

from pathlib import Path

import numpy as np

from mljax.data.files.coco_json import Annotations, check_known, read_annotations
from mljax.data.files.folders import one_row_each, split_names
from mljax.data.files.image_paths import present_images
from mljax.data.files.names import Id, check_file_name, check_id
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
        file does not define, a class that is both present and absent, an id or a name that is
        none or occurs twice, two images that are one file; the message names the file.
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
    expected = f"no LVIS annotations: expected {' or '.join(map(str, candidates))}"
    if annotations is not None:
        raise ValueError(expected)
    raise ValueError(f"{expected}; {split_names(candidates, split)}")


def _parse(path: Path) -> tuple[tuple[str, ...], list[str], SparseLabels]:
    """Returns the class names, and the file and the labels of each image."""
    content = read_annotations(path, "the format of LVIS")
    files = [_file(content, image) for image in content.images]
    one_row_each(files, [f"image {image}" for image in content.images], str(path))
    absent = [(image, c) for image in content.images for c in _absent(content, image)]
    if both := set(content.pairs) & set(absent):
        image, category = min(both, key=str)
        raise ValueError(f"{path}: category {category} is both present and absent in image {image}")
    row_of = {image: row for row, image in enumerate(content.images)}
    pairs = [*content.pairs, *absent]
    labels = SparseLabels.from_annotations(
        np.array([row_of[image] for image, _ in pairs], np.int32),
        np.array([content.column_of[category] for _, category in pairs], np.int32),
        np.arange(len(pairs)) < len(content.pairs),
        shape=(len(content.images), len(content.class_names)),
    )
    return content.class_names, files, labels


def _field(content: Annotations, image: Id, name: str) -> object:
    fields = content.images[image]
    if name not in fields:
        raise ValueError(
            f"{content.path}: not in the format of LVIS, field {name!r} is missing in image {image}"
        )
    return fields[name]


def _absent(content: Annotations, image: Id) -> list[Id]:
    listed = _field(content, image, "neg_category_ids")
    if not isinstance(listed, list):
        raise ValueError(
            f"{content.where(image)}: neg_category_ids is {listed!r:.80}, expected a list of "
            "category ids; not in the format of LVIS"
        )
    ids = [check_id(value, f"{content.where(image)}: neg_category_ids") for value in listed]
    for category in ids:
        check_known(content, "neg_category_ids", image, category)
    return ids


def _file(content: Annotations, image: Id) -> str:
    url = _field(content, image, "coco_url")
    where = f"{content.path}: not in the format of LVIS: image {image}"
    parts = check_file_name(url, where).rsplit("/", 2)
    if len(parts) < 3:
        raise ValueError(
            f"{content.where(image)} has the coco_url {url!r}, expected it to end in /FOLDER/FILE"
        )
    return f"{parts[1]}/{parts[2]}"
