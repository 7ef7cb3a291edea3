"""Data sets that tensorflow-datasets has prepared, read without TensorFlow."""

import functools
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mljax.data.records import Records


def tfds(split: str, *, root: str | Path, image: str = "image", labels: str = "labels") -> Records:
    """Reads one split of a prepared data set whose files are array records.

    A class is present in an image that has its label at least once, and absent from the others.
    The labels are read once at the start, which passes over the whole split.

    Source: https://www.tensorflow.org/datasets; `builder.download_and_prepare()` with
    `file_format="array_record"` writes such folders.

    Args:
      split: of the data set, also a slice such as `train[:90%]`.
      root: the version's folder, which holds `dataset_info.json`, such as
        `~/tensorflow_datasets/coco/2017/1.1.0`.
      image: the feature with the image.
      labels: the feature with the labels, a ClassLabel or a sequence of them; a slash leads into a
        feature of several, as `objects/label` does in COCO and VOC.

    Raises:
      ValueError: if the folder, the split or a feature is not there or of another kind.
    """
    # Its import takes a second, also in every worker of every other data set.
    import tensorflow_datasets

    path = Path(root).expanduser()
    if not (path / "dataset_info.json").is_file():
        raise ValueError(
            f"{path}: there is no dataset_info.json; expected the folder of a version that "
            "tensorflow-datasets has prepared, such as ~/tensorflow_datasets/coco/2017/1.1.0"
        )
    builder: Any = tensorflow_datasets.builder_from_directory(path)
    _feature(builder.info.features, image, "Image", path)
    classes = _feature(builder.info.features, labels, "ClassLabel", path)
    try:
        source = builder.as_data_source(
            split=split, decoders={image: tensorflow_datasets.decode.SkipDecoding()}
        )
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{path}, split {split!r}: {error}; expected one of {', '.join(builder.info.splits)}, "
            "in array records"
        ) from error
    table = np.zeros((len(source), classes.num_classes), np.int8)
    for row, example in enumerate(source):
        present = np.ravel(functools.reduce(operator.getitem, labels.split("/"), example))
        if present.size and present.min() < 0:
            raise ValueError(f"{path}, split {split!r}: image {row} has no labels, only -1")
        table[row, present.astype(int)] = 1
    return Records(images=_Images(source, image), labels=table, class_names=tuple(classes.names))


def _feature(features: Any, name: str, kind: str, path: Path) -> Any:  # noqa: ANN401
    """Returns the feature under `name`, which is of `kind` or a sequence of such."""
    found = features
    for key in name.split("/"):
        # Of a sequence, what it is of.
        found = getattr(found, "feature", found)
        if key not in getattr(found, "keys", tuple)():
            raise ValueError(f"{path}: there is no feature {name!r}; the features are {features}")
        found = found[key]
    found = getattr(found, "feature", found)
    if type(found).__name__ != kind:
        raise ValueError(f"{path}: feature {name!r} is {found}, expected a {kind}")
    return found


class _Images(Sequence[bytes]):
    """The image files of a data source."""

    def __init__(self, source: Any, key: str) -> None:  # noqa: ANN401
        self._source = source
        self._key = key

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401
        return self._source[index][self._key]
