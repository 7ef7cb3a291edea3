"""NUS-WIDE for zero-shot learning: `data.csv`, `benchmark_81_v0.json`, word vectors.

Ridnik et al., "ML-Decoder", https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder README.md and
helper_functions.py (`get_datasets_from_csv`). 925 classes are trained, 81 others are tested:

    data.csv                 path,"[label, label]",split with the splits train and val
    benchmark_81_v0.json     {"train class": [names], "test class": [names]}
    wordvec_array.npy        an array [300, classes], in the order of `all_classes`

The last one is published as a torch file; make it an array once by

    python -c "import numpy, torch; numpy.save('wordvec_array', torch.load('wordvec_array.pth'))"
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mljax.data.files.folders import one_row_each
from mljax.data.files.image_paths import present_images
from mljax.data.files.label_table import read_label_table
from mljax.data.files.names import class_name
from mljax.data.files.npy import read_npy
from mljax.data.files.text import read_json
from mljax.data.records import Records


def nus_wide_zsl(
    split: str,
    *,
    root: str | Path,
    class_set: str | None = None,
    word_vectors: str | None = None,
    keep_unlabeled: bool = False,
    missing_images: str = "fail",
) -> Records:
    """Reads one split of NUS-WIDE with the classes that are trained, or those that are tested.

    The classes are sorted by name. Labels that are not listed are absent.

    Differs from the reference: images without any label do not make a class of the empty name.

    Args:
      split: `train` or `val`.
      root: the folder of the files, which the paths in the table are relative to.
      class_set: `train`, `test` or `all` (as for generalized zero-shot learning); None takes
        `train` for the split `train` and `test` for the others.
      word_vectors: the file of word vectors under `root`; None leaves them out.
      keep_unlabeled: also keep images without any label of these classes.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look.

    Raises:
      ValueError: if a file or an image is missing, for a malformed row, or a set without classes.
    """
    root = Path(root)
    rows = _read(root / "data.csv")
    names = _class_set(root, rows, _default_set(split, class_set))
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        splits = sorted({row.split for row in rows})
        raise ValueError(f"{root / 'data.csv'}: no row is of split {split!r}; there are {splits}")
    lines = [f"line {row.line}" for row in chosen]
    one_row_each([row.image for row in chosen], lines, str(root / "data.csv"))
    column = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(chosen), len(names)), np.int8)
    for number, row in enumerate(chosen):
        labels[number, [column[name] for name in row.labels if name in column]] = 1
    paths = [str(root / row.image) for row in chosen]
    if not keep_unlabeled:
        labeled = np.flatnonzero(labels.any(axis=1))
        if not len(labeled):
            raise ValueError(
                f"{root / 'data.csv'}: none of the {len(paths)} images of the split {split!r} has "
                f"a label of the {len(names)} classes; keep_unlabeled=True reads them"
            )
        labels, paths = labels[labeled], [paths[row] for row in labeled]
    there = present_images(paths, missing_images)
    if not len(there):
        raise ValueError(
            f"{root}: there is none of the {len(paths)} images of the split {split!r}, such as "
            f"{paths[0]}"
        )
    vectors = None
    if word_vectors is not None:
        array = _load(root / word_vectors)
        vectors = word_vectors_of(array, split, root=root, class_set=class_set)
    return Records(
        images=[paths[row] for row in there],
        labels=labels[there],
        class_names=names,
        class_vectors=vectors,
    )


def all_classes(root: str | Path) -> tuple[str, ...]:
    """Returns the names of all classes in the table, sorted: the order of the word vectors."""
    return _sorted_names(_read(Path(root) / "data.csv"))


def word_vectors_of(
    vectors: Float[np.ndarray, "w all"],
    split: str,
    *,
    root: str | Path,
    class_set: str | None = None,
) -> Float[np.ndarray, "k w"]:
    """Returns the word vectors of the classes of `nus_wide_zsl`, a row each, in its order.

    Args:
      vectors: the array of all classes.
      split: as for `nus_wide_zsl`.
      root: as for `nus_wide_zsl`.
      class_set: as for `nus_wide_zsl`.

    Raises:
      ValueError: for another number of vectors than the table has classes.
    """
    rows = _read(Path(root) / "data.csv")
    everything = _sorted_names(rows)
    if vectors.shape[1] != len(everything):
        raise ValueError(
            f"vectors: got shape {vectors.shape}, expected a column for each of the "
            f"{len(everything)} classes in {Path(root) / 'data.csv'}"
        )
    position = {name: number for number, name in enumerate(everything)}
    names = _class_set(Path(root), rows, _default_set(split, class_set))
    return vectors.T[[position[name] for name in names]]


def _load(path: Path) -> Float[np.ndarray, "w all"]:
    vectors = read_npy(path, "the word vectors [300, classes]")
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"{path}: got shape {vectors.shape}, expected [300, classes]")
    if not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(f"{path}: got {vectors.dtype}, expected floating-point word vectors")
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{path}: a word vector holds a number that is not finite as float32")
    return vectors


class _Row(NamedTuple):
    line: int
    image: str
    labels: list[str]
    split: str


def _default_set(split: str, class_set: str | None) -> str:
    class_set = class_set or ("train" if split == "train" else "test")
    if class_set not in ("train", "test", "all"):
        raise ValueError(f"class_set: got {class_set!r}, expected 'train', 'test' or 'all'")
    return class_set


def _sorted_names(rows: Sequence[_Row]) -> tuple[str, ...]:
    return tuple(sorted({name for row in rows for name in row.labels}))


def _class_set(root: Path, rows: Sequence[_Row], class_set: str) -> tuple[str, ...]:
    everything = _sorted_names(rows)
    if not everything:
        raise ValueError(f"{root / 'data.csv'}: no row has a label, so there are no classes")
    if class_set == "all":
        return everything
    path = root / "benchmark_81_v0.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the lists of train and test classes")
    sets = read_json(path)
    if not isinstance(sets, dict) or "test class" not in sets:
        raise ValueError(f"{path}: expected the lists `train class` and 'test class'")
    tested = _listed(sets, "test class", path)
    trained = set(everything) - tested
    if "train class" in sets:
        trained = _listed(sets, "train class", path)
    names = tuple(
        name for name in everything if name in (trained if class_set == "train" else tested)
    )
    if not names:
        raise ValueError(
            f"{path}: none of its {class_set} classes is among the {len(everything)} classes of "
            f"{root / 'data.csv'}, such as {everything[:3]}"
        )
    left = [name for name in everything if name not in trained | tested]
    unknown = sorted((trained | tested) - set(everything))
    # A class without any image may be listed; but one that is misspelled leaves another over.
    if unknown and (left or "train class" not in sets):
        close = difflib.get_close_matches(unknown[0], left or everything, 1)
        raise ValueError(
            f"{path}: the class {unknown[0]!r} is none of {root / 'data.csv'}"
            f"{f', which has {close[0]!r}' if close else ''}; {len(left)} classes there are in "
            f"neither list{f', such as {left[0]!r}' if left else ''}"
        )
    return names


def _listed(sets: dict[str, Any], name: str, path: Path) -> set[str]:
    names = sets[name]
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ValueError(f"{path}: expected the lists `train class` and `test class` of text")
    return {class_name(each) for each in names}


def _read(path: Path) -> list[_Row]:
    table = read_label_table(path)
    if len(table.header) != 3:
        raise ValueError(
            f"{path}, line 1: got {len(table.header)} columns, expected the path, the labels as "
            "`[label, label]` and the split"
        )
    rows = []
    for line, (image, cell, split) in zip(table.lines, table.rows, strict=True):
        # Parity: quotes around a label, if there are any, are part of its name.
        labels = cell.replace("[", "").replace("]", "").split(", ")
        names = [class_name(label) for label in labels if label.strip()]
        if joined := [name for name in names if any(sign in name for sign in ",;|")]:
            raise ValueError(
                f"{path}, line {line}: {joined[0]!r} is no class name; expected the labels as "
                "`[label, label]`, with a comma and a space between them"
            )
        rows.append(_Row(line, image, names, split))
        if not image.strip():
            raise ValueError(f"{path}, line {line}: the path of the image is blank")
    return rows
