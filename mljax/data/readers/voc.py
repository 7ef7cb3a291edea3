"""Pascal VOC folders: `Annotations/*.xml`, `ImageSets/Main/{split}.txt`, `JPEGImages/`.

Everingham et al., "The Pascal Visual Object Classes Challenge",
http://host.robots.ox.ac.uk/pascal/VOC/. Any class names will do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mljax.data.files.folders import Listings, one_row_each, split_names
from mljax.data.files.names import check_class_names, class_name
from mljax.data.files.text import read_lines, read_xml
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

# The lists of one class have a second column.
_OF_ONE_CLASS = re.compile(r"(.*\S)\s+(?:-1|0|1)")

# What an annotation may hold of the image itself, with elements of its own.
_DETAILS = ("source", "owner", "size", "imagesize")

_DIFFICULT = {"1": True, "1.0": True, "true": True, "yes": True}
_DIFFICULT |= {"": False, "0": False, "0.0": False, "false": False, "no": False}


def voc(split: str, *, root: str | Path, class_names: Sequence[str] | None = None) -> Records:
    """Reads one split of a VOC folder.

    A class is present where at least one object of it is annotated. Where all of them are marked
    difficult, `ignored` is true as well: training counts the class as present and metrics leave
    the entry out, as mahdihosseini/KMCL does and VOC's own evaluation demands. `difficult` is 1,
    true or yes; 0, false, no or nothing.

    A line of the list is an image's name, spaces included; where no annotation has that name, -1, 0
    or 1 at its end is left out, as in the lists of one class. An image is `JPEGImages/NAME` with
    .jpg or any suffix of a picture, else what the annotation's `filename` says, which tools often
    leave as it was. Hidden files are left out.

    Args:
      split: the name of a list in `ImageSets/Main`: `train`, `val`, `trainval` or `test`.
      root: the folder that holds `Annotations`, such as `VOCdevkit/VOC2007`.
      class_names: the classes in label order, such as `VOC_CLASSES`; None takes all that occur in
        the folder's annotations, sorted, so that every split has the same.

    Raises:
      ValueError: if a file is missing, malformed or no VOC annotation, a class is unknown, or two
        annotations are of one picture; the message names it.
    """
    root = Path(root)
    folder, listings = root / "Annotations", Listings()
    stems = _stems(root / "ImageSets" / "Main" / f"{split}.txt", split, folder, listings)
    annotations = {stem: _parse(folder / f"{stem}.xml") for stem in stems}
    if class_names is None:
        files = [name for name in listings.files(folder) if not name.startswith(".")]
        others = [
            folder / name
            for name in files
            if name.endswith(".xml") and name.removesuffix(".xml") not in annotations
        ]
        everything = [*annotations.values(), *map(_parse, others)]
        names = tuple(sorted({name for one in everything for name in one.difficult}))
        names = check_class_names(names, str(folder))
    else:
        names = check_class_names(class_names, "class_names")
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
    images = [
        _image_path(root / "JPEGImages" / stem, one, listings) for stem, one in annotations.items()
    ]
    one_row_each(images, [f"{stem}.xml" for stem in stems], str(folder))
    return Records(images=images, labels=labels, class_names=names, ignored=ignored)


@dataclass(frozen=True)
class _Annotation:
    """One XML file: its image, and for each class whether all its objects are difficult."""

    path: Path
    filename: str | None
    difficult: dict[str, bool]


def _stems(path: Path, split: str, annotations: Path, listings: Listings) -> list[str]:
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; expected a list of image names, one a line; "
            f"{split_names([path], split)}"
        )
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        stem = line.rstrip("\r\n")
        if not listings.has(annotations / f"{stem}.xml"):
            stem = line.strip()
        if not stem:
            continue
        match = _OF_ONE_CLASS.fullmatch(stem)
        if match and not listings.has(annotations / f"{stem}.xml"):
            stem = match[1]
        if not listings.has(annotations / f"{stem}.xml"):
            raise ValueError(
                f"{annotations / stem}.xml: no such file, but its image is listed in {path}, line "
                f"{number}"
            )
        if stem in lines:
            raise ValueError(
                f"{path}, line {number}: an image is listed twice: {stem!r} is already in line "
                f"{lines[stem]}"
            )
        lines[stem] = number
    return list(lines)


def _parse(path: Path) -> _Annotation:
    root = read_xml(path)
    objects = _objects(root, path)
    difficult: dict[str, bool] = {}
    for thing in objects:
        names = [class_name(name.text or "") for name in thing.findall("name")]
        if len(names) != 1 or not names[0]:
            found = "no name" if not any(names) else f"the names {', '.join(names)}"
            raise ValueError(f"{path}: an object has {found}")
        hard = _is_difficult(thing, f"{path}, object {names[0]!r}")
        difficult[names[0]] = hard and difficult.get(names[0], True)
    return _Annotation(path, root.findtext("filename"), difficult)


def _is_difficult(thing: ElementTree.Element, where: str) -> bool:
    """Returns whether an object is marked, by an element or an attribute, in any spelling."""
    marks = [part.text or "" for part in thing.iter() if str(part.tag).lower() == "difficult"]
    marks += [value for name, value in thing.attrib.items() if name.lower() == "difficult"]
    if len(marks) > 1:
        raise ValueError(f"{where}: difficult is there {len(marks)} times, expected once at most")
    text = "".join(marks).strip()
    if text.lower() not in _DIFFICULT:
        raise ValueError(
            f"{where}: difficult is {text!r:.40}, expected 1 or 0, true or false, yes or no"
        )
    return _DIFFICULT[text.lower()]


def _objects(root: ElementTree.Element, path: Path) -> list[ElementTree.Element]:
    """Returns the objects of an annotation, which stand directly below its root."""
    if root.tag != "annotation":
        raise ValueError(
            f"{path}: no VOC annotation: the root is <{root.tag}>, expected <annotation>"
        )
    objects = root.findall("object")
    own = set(objects)
    within = {part for thing in objects for part in thing.iter() if part is not thing}
    for element in root.iter():
        name = str(element.tag).rpartition("}")[2].lower()
        stray = name in ("object", "objects") and element not in own
        if stray or name == "bndbox" and element not in within:
            raise ValueError(
                f"{path}: no VOC annotation: <{element.tag}> stands where none is expected; "
                "objects are <object> directly in <annotation>, without a namespace"
            )
    for element in () if objects else root:
        # Labels under other names must not pass for a picture without any.
        if element.tag == "name" or len(element) and element.tag not in _DETAILS:
            raise ValueError(
                f"{path}: no VOC annotation: it has <{element.tag}> and no <object>; an image "
                f"without objects has only {', '.join(_DETAILS)} and single values"
            )
    return objects


def _image_path(path: Path, annotation: _Annotation, listings: Listings) -> str:
    """Returns where the image is that should be at `path`, which has no suffix.

    The name that the format prescribes comes first: tools often leave a stale `filename`.
    """
    folder, filename = path.parent, (annotation.filename or "").strip()
    pictures = listings.pictures(folder, path.name)
    for name in (f"{path.name}.jpg", filename):
        if name in pictures:
            return str(folder / name)
    if len(pictures) > 1:
        raise ValueError(
            f"{annotation.path}: there are several pictures of this name in {folder}: "
            f"{', '.join(pictures)}"
        )
    if pictures:
        return str(folder / pictures[0])
    if filename and (found := listings.find([folder], filename)):
        return found
    names = [f"{path.name}.jpg", filename]
    raise ValueError(
        f"{annotation.path}: there is no image {' or '.join(filter(None, names))} in {folder}"
    )
