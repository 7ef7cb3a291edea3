"""NUS-WIDE for zero-shot learning: `data.csv`, `benchmark_81_v0.json`, word vectors.

Ridnik et al., "ML-Decoder", https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder README.md and
helper_functions.py (`get_datasets_from_csv`). 925 classes are trained, 81 others are tested:

    data.csv                 path,"[label, label]",split with the splits train and val
    benchmark_81_v0.json     {"train class": [names], "test class": [names]}
    wordvec_array.npy        an array [300, classes], in the order of `all_classes`

The last one is published as a torch file; make it an array once by

    python -c "import numpy, torch; numpy.save('wordvec_array', torch.load('wordvec_array.pth'))"
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mljax.data.files.image_paths import present_images
from mljax.data.files.label_table import read_label_table, read_utf8
from mljax.data.files.npy import read_npy
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
    chosen = [(path, labels) for path, labels, of in rows if of == split]
    if not chosen:
        splits = sorted({of for _, _, of in rows})
        raise ValueError(f"{root / 'data.csv'}: no row is of split {split!r}; there are {splits}")
    column = {name: number for number, name in enumerate(names)}
    labels = np.zeros((len(chosen), len(names)), np.int8)
    for row, (_, listed) in enumerate(chosen):
        labels[row, [column[name] for name in listed if name in column]] = 1
    paths = [str(root / path) for path, _ in chosen]
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
    return vectors.astype(np.float32)


_Row = tuple[str, list[str], str]


def _default_set(split: str, class_set: str | None) -> str:
    class_set = class_set or ("train" if split == "train" else "test")
    if class_set not in ("train", "test", "all"):
        raise ValueError(f"class_set: got {class_set!r}, expected 'train', 'test' or 'all'")
    return class_set


def _sorted_names(rows: Sequence[_Row]) -> tuple[str, ...]:
    return tuple(sorted({name for _, labels, _ in rows for name in labels}))


def _class_set(root: Path, rows: Sequence[_Row], class_set: str) -> tuple[str, ...]:
    everything = _sorted_names(rows)
    if not everything:
        raise ValueError(f"{root / 'data.csv'}: no row has a label, so there are no classes")
    if class_set == "all":
        return everything
    path = root / "benchmark_81_v0.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the lists of train and test classes")
    text = read_utf8(path)
    try:
        sets = json.loads(text)
        tested = set(sets["test class"])
        trained = set(sets["train class"]) if "train class" in sets else set(everything) - tested
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: expected the lists `train class` and `test class` ({error})"
        ) from None
    names = tuple(
        name for name in everything if name in (trained if class_set == "train" else tested)
    )
    if not names:
        raise ValueError(
            f"{path}: none of its {class_set} classes is among the {len(everything)} classes of "
            f"{root / 'data.csv'}, such as {everything[:3]}"
        )
    return names


def _read(path: Path) -> list[_Row]:
    table = read_label_table(path)
    if len(table.header) != 3:
        raise ValueError(
            f"{path}, line 1: got {len(table.header)} columns, expected the path, the labels as "
            "`[label, label]` and the split"
        )
    rows = []
    for image, cell, split in table.rows:
        # Parity: quotes around a label, if there are any, are part of its name.
        labels = cell.replace("[", "").replace("]", "").split(", ")
        rows.append((image, [label for label in labels if label], split))
    return rows
