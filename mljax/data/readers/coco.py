"""COCO folders: `annotations/instances_{split}{year}.json` and `{split}{year}/`.

Lin et al., "Microsoft COCO", https://arxiv.org/abs/1405.0312. A class is present where at least
one object of it is annotated, crowds included, as in Alibaba-MIIL/ASL helper_functions.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mljax.data.files.coco_json import Annotations, read_annotations
from mljax.data.files.folders import Listings, one_row_each, split_names
from mljax.data.files.names import Id, check_file_name, check_id
from mljax.data.files.text import read_lines
from mljax.data.records import Records

_YEARS = (2014, 2017)

# Ids, or the file that lists them.
_Ids = Sequence[Id] | str | Path


def coco(
    split: str,
    *,
    root: str | Path,
    year: int | None = None,
    keep_unannotated: bool = False,
    image_ids: _Ids | Mapping[str, _Ids] | None = None,
    exclude: Sequence[str | int] = (),
) -> Records:
    """Reads one split of a COCO folder.

    The classes are the file's `categories`, in its order. Ids are whole numbers or text. An image
    is where `file_name` says: under the split's folder, else under `root`, or where an absolute
    path leads.

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
      exclude: names of categories that are no classes, such as the root of a hierarchy, or their
        numbers where another has the same name.

    Raises:
      ValueError: if a file, an image or a field is missing, an id or a name is none, unknown or
        occurs twice, or two images are one file; the message names the file.
    """
    path = _annotation_file(split, Path(root), year)
    if isinstance(image_ids, Mapping):
        for name in image_ids:
            # A misspelled split must not pass for one that keeps all.
            _annotation_file(name, Path(root), year)
        image_ids = image_ids.get(split)
    content = read_annotations(path, "COCO's format", exclude)
    ids = list(dict.fromkeys(image for image, _ in content.pairs))
    if keep_unannotated:
        ids = list(content.images)
    if image_ids is not None:
        ids = _select(ids, image_ids, path)

    labels = np.zeros((len(ids), len(content.class_names)), np.int8)
    row_of = {image: row for row, image in enumerate(ids)}
    kept = [(row_of[image], content.column_of[c]) for image, c in content.pairs if image in row_of]
    rows, columns = np.array(kept, np.int64).reshape(-1, 2).T
    labels[rows, columns] = 1

    images = _image_paths(Path(root), path.stem.removeprefix("instances_"), content, ids)
    return Records(images=images, labels=labels, class_names=content.class_names)


def _annotation_file(split: str, root: Path, year: int | None) -> Path:
    years = _YEARS if year is None else (year,)
    candidates = [root / "annotations" / f"instances_{split}{number}.json" for number in years]
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{root} holds both COCO 2014 and 2017: say which by year=2014 or 2017")
    if not found:
        raise ValueError(
            f"no COCO annotations: expected {' or '.join(map(str, candidates))}; "
            f"{split_names(candidates, split)}"
        )
    return found[0]


def _select(known: list[Id], wanted: _Ids, path: Path) -> list[Id]:
    if isinstance(wanted, str | Path):
        source, ids = str(wanted), _read_ids(Path(wanted), known)
    else:
        source, ids = "image_ids", [check_id(value, "image_ids") for value in wanted]
    missing = sorted(set(ids) - set(known), key=str)
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} ids, such as {missing[0]}, are not among the images of "
            f"{path} that are read; those without objects need keep_unannotated=True"
        )
    if len(set(ids)) < len(ids):
        raise ValueError(f"{source}: an image id occurs twice")
    return list(ids)


def _read_ids(path: Path, known: list[Id]) -> list[Id]:
    if not path.is_file():
        raise ValueError(f"image_ids: there is no file {path}")
    by_text = {str(value): value for value in known}
    ids = []
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        if text in by_text:
            ids.append(by_text[text])
        elif text:
            ids.append(_number(text, path, number))
    return ids


def _number(text: str, path: Path, line: int) -> int:
    try:
        # COCO's subsets for KMCL are lists in numpy's default notation, 5.782500000000000000e+05.
        value = float(text)
        if value == int(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{path}: expected one whole number a line, or an id that the annotations have; line "
        f"{line} holds {text!r:.80}"
    )


def _image_paths(root: Path, folder: str, content: Annotations, ids: list[Id]) -> list[str]:
    listings = Listings()
    paths, missing = [], []
    for image in ids:
        fields = content.images[image]
        if "file_name" not in fields:
            raise ValueError(
                f"{content.path}: not in COCO's format, field 'file_name' is missing in image "
                f"{image}"
            )
        name = check_file_name(fields["file_name"], content.where(image))
        found = listings.find((root / folder, root), name)
        paths.append(found or name)
        if found is None:
            missing.append(name)
    if missing:
        if not (root / folder).is_dir():
            raise ValueError(
                f"there is no image folder {root / folder}, nor is {missing[0]} in {root}"
            )
        raise ValueError(
            f"{root / folder}: {len(missing)} of {len(ids)} images are missing, such as "
            f"{missing[0]}"
        )
    one_row_each(paths, [f"image {image}" for image in ids], str(content.path))
    return paths
