"""Pascal VOC folders: `Annotations/*.xml`, `ImageSets/Main/{split}.txt`, `JPEGImages/`.

Everingham et al., "The Pascal Visual Object Classes Challenge",
http://host.robots.ox.ac.uk/pascal/VOC/. Any class names will do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mljax.data.files.label_table import read_utf8
from mljax.data.records import Records

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def voc(split: str, *, root: str | Path, class_names: Sequence[str] | None = None) -> Records:
    """Reads one split of a VOC folder.

    A class is present where at least one object of it is annotated. Where all of them are marked
    difficult, `ignored` is true as well: training counts the class as present and metrics leave
    the entry out, as mahdihosseini/KMCL does and VOC's own evaluation demands.

    Args:
      split: the name of a list in `ImageSets/Main`: `train`, `val`, `trainval` or `test`.
      root: the folder that holds `Annotations`, such as `VOCdevkit/VOC2007`.
      class_names: the classes in label order, such as `VOC_CLASSES`; None takes all that occur in
        the folder's annotations, sorted, so that every split has the same.

    Raises:
      ValueError: if a file is missing or malformed, or a class is unknown; the message names it.
    """
    root = Path(root)
    stems = _stems(root / "ImageSets" / "Main" / f"{split}.txt")
    annotations = {stem: _parse(root / "Annotations" / f"{stem}.xml") for stem in stems}
    if class_names is None:
        others = (
            path for path in (root / "Annotations").glob("*.xml") if path.stem not in annotations
        )
        everything = [*annotations.values(), *map(_parse, others)]
        class_names = sorted({name for one in everything for name in one.difficult})
    names = tuple(class_names)
    column = {name: number for number, name in enumerate(names)}

    labels = np.zeros((len(stems), len(names)), np.int8)
    ignored = np.zeros(labels.shape, bool)
    for row, annotation in enumerate(annotations.values()):
        for name, difficult in annotation.difficult.items():
            if name not in column:
                raise ValueError(
                    f"{annotation.path}: unknown class {name!r}; the classes are {', '.join(names)}"
                )
            labels[row, column[name]] = 1
            ignored[row, column[name]] = difficult
    images = [_image_path(root / "JPEGImages", one) for one in annotations.values()]
    return Records(images=images, labels=labels, class_names=names, ignored=ignored)


@dataclass(frozen=True)
class _Annotation:
    """One XML file: its image, and for each class whether all its objects are difficult."""

    path: Path
    filename: str | None
    difficult: dict[str, bool]


def _stems(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a list of image names, one a line")
    # The lists of one class have a second column, 1, 0 or -1.
    stems = [line.split()[0] for line in read_utf8(path).splitlines() if line.strip()]
    if len(set(stems)) < len(stems):
        raise ValueError(f"{path}: an image is listed twice")
    return stems


def _parse(path: Path) -> _Annotation:
    try:
        tree = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file, but its image is listed") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not an XML file ({error})") from None
    difficult: dict[str, bool] = {}
    for thing in tree.findall("object"):
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"{path}: an object has no name")
        hard = (thing.findtext("difficult") or "0").strip() == "1"
        difficult[name] = hard and difficult.get(name, True)
    return _Annotation(path, tree.findtext("filename"), difficult)


def _image_path(folder: Path, annotation: _Annotation) -> str:
    """Prefers the name that the format prescribes: tools often leave a stale `filename`."""
    names = [f"{annotation.path.stem}.jpg", annotation.filename or ""]
    for name in names:
        if (folder / name).is_file():
            return str(folder / name)
    raise ValueError(
        f"{annotation.path}: there is no image {' or '.join(filter(None, names))} in {folder}"
    )
