"""Annotation files of COCO's form: categories, images, and annotations that join their ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mljax.data.files.names import Id, check_class_names, check_id, class_name, one_id_each
from mljax.data.files.text import read_json


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """What an annotation file holds, checked.

    Attributes:
      path: of the file.
      class_names: of the categories, in the file's order.
      column_of: category id to its place among the class names.
      images: image id to the image's fields.
      pairs: the image and the category of each annotation.
      excluded: ids of categories that are left out.
    """

    path: Path
    class_names: tuple[str, ...]
    column_of: dict[Id, int]
    images: dict[Id, dict[str, Any]]
    pairs: list[tuple[Id, Id]]
    excluded: set[Id]

    def where(self, image_id: Id) -> str:
        """Returns how messages call an image."""
        return f"{self.path}: image {image_id}"


def read_annotations(path: Path, kind: str, exclude: Sequence[str | int] = ()) -> Annotations:
    """Reads an annotation file.

    Args:
      path: of the file.
      kind: what the format is called in messages.
      exclude: names of categories to leave out, or their ids, with all that is annotated of them.

    Raises:
      ValueError: for a file that is not of this form, an id or a name that is none or occurs twice,
        an annotation of what is not in the file, a category to leave out that is not there.
    """
    content = read_json(path, _pair)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not in {kind}, got {type(content).__name__}, expected an object")
    categories, images = (
        _entries(content, field, path, kind) for field in ("categories", "images")
    )
    category_ids = _ids(categories, "categories", path, kind)
    names = [_field(c, "name", "categories", n, path, kind) for n, c in enumerate(categories)]
    excluded = _excluded(exclude, category_ids, names, path)
    kept = [n for n, category in enumerate(category_ids) if category not in excluded]
    annotations = Annotations(
        path=path,
        class_names=check_class_names([names[n] for n in kept], f"{path}: categories"),
        column_of={category_ids[n]: column for column, n in enumerate(kept)},
        images=dict(zip(_ids(images, "images", path, kind), images, strict=True)),
        pairs=[],
        excluded=excluded,
    )
    for number, pair in enumerate(_entries(content, "annotations", path, kind, pairs=True)):
        where = f"{path}: annotations[{number}]"
        image, category = (check_id(value, where) for value in pair)
        check_known(annotations, "an annotation", image, category)
        if category not in excluded:
            annotations.pairs.append((image, category))
    return annotations


def check_known(annotations: Annotations, what: str, image: Id, category: Id) -> None:
    """Checks that a file has an image and a category.

    Raises:
      ValueError: naming both and `what` names them.
    """
    known = category in annotations.column_of or category in annotations.excluded
    if image not in annotations.images or not known:
        raise ValueError(
            f"{annotations.path}: {what} names image {image!r} and category {category!r}, which "
            "are not both in the file"
        )


def _pair(thing: dict[str, Any]) -> Any:  # noqa: ANN401
    """Makes a pair of an annotation while the file is parsed: its outline is most of the file."""
    if "image_id" in thing and "category_id" in thing:
        return thing["image_id"], thing["category_id"]
    return thing


def _entries(
    content: dict[str, Any], field: str, path: Path, kind: str, *, pairs: bool = False
) -> list[Any]:
    if field not in content:
        raise ValueError(f"{path}: not in {kind}, field {field!r} is missing")
    entries = content[field]
    if not isinstance(entries, list):
        raise ValueError(
            f"{path}: not in {kind}, field {field!r} is a {type(entries).__name__}, not a list"
        )
    for number, entry in enumerate(entries):
        if pairs and isinstance(entry, dict):
            missing = next(name for name in ("image_id", "category_id") if name not in entry)
            raise ValueError(
                f"{path}: not in {kind}, field {missing!r} is missing in {field}[{number}]"
            )
        if not isinstance(entry, tuple if pairs else dict):
            raise ValueError(f"{path}: not in {kind}, {field}[{number}] is {entry!r:.80}")
    return entries


def _field(entry: dict[str, Any], name: str, field: str, number: int, path: Path, kind: str) -> Any:  # noqa: ANN401
    if name not in entry:
        raise ValueError(f"{path}: not in {kind}, field {name!r} is missing in {field}[{number}]")
    return entry[name]


def _ids(entries: Sequence[dict[str, Any]], field: str, path: Path, kind: str) -> list[Id]:
    ids = [
        check_id(_field(entry, "id", field, number, path, kind), f"{path}: {field}[{number}]")
        for number, entry in enumerate(entries)
    ]
    one_id_each(ids, f"{path}: {field}")
    return ids


def _excluded(
    exclude: Sequence[str | int], ids: Sequence[Id], names: Iterable[Any], path: Path
) -> set[Id]:
    if isinstance(exclude, str):
        raise ValueError(f"exclude: got the text {exclude!r}, expected several names or ids")
    found: set[Id] = set()
    names = [class_name(name) if isinstance(name, str) else name for name in names]
    for wanted in exclude:
        if isinstance(wanted, str):
            here = [at for at, name in zip(ids, names, strict=True) if name == class_name(wanted)]
        else:
            here = [at for at in ids if at == check_id(wanted, "exclude")]
        if not here:
            raise ValueError(
                f"exclude: {path} has no category {wanted!r}; the categories are "
                f"{', '.join(map(str, names))}"
            )
        found.update(here)
    return found
