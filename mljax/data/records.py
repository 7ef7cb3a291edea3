"""What every reader returns: the images of one split and their labels."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mljax.data.files.names import check_class_names, check_file_name
from mljax.data.sparse_labels import SparseLabels


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What is known of the classes of a split; heads, trackers and evaluators read it.

    Attributes:
      names: the k names, in label order.
      vectors: optional `[k, w]` float32, such as of the words of the names.
      labels: of the split that the classes were read with, as in `Records`; None where there is
        none.
      threshold: a class is predicted where its score is above: one for all, or `[k]`.
      logit_threshold: the same before the sigmoid, `[k]`, where thresholds were calibrated; exact,
        while many logits have one score.
    """

    names: tuple[str, ...]
    vectors: np.ndarray | None = None
    labels: Any = None
    threshold: float | np.ndarray = 0.8
    logit_threshold: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Records:
    """One split of a data set, in a fixed order.

    Attributes:
      images: a path for each image, or its file's content, or the images themselves as uint8
        `[n, h, w, 3]`.
      labels: `[n, k]` int8, or anything whose rows can be indexed alike, such as
        `mljax.data.sparse_labels.SparseLabels`; 1 present, 0 absent, -1 unannotated.
      class_names: the k names, in label order, as `mljax.data.files.names` keeps them.
      ignored: optional `[n, k]` bool; entries that the metrics leave out (VOC's *difficult*).
      class_vectors: optional `[k, w]` float32, such as of the words of the names, for heads that
        score classes without training images. Splits with class vectors may have different classes.
    """

    images: Sequence[str] | Sequence[bytes] | np.ndarray
    labels: Any
    class_names: tuple[str, ...]
    ignored: np.ndarray | None = None
    class_vectors: np.ndarray | None = None

    def __post_init__(self) -> None:
        counts = {"images": len(self.images), "labels": len(self.labels)}
        if self.ignored is not None:
            counts["ignored"] = len(self.ignored)
        if len(set(counts.values())) != 1:
            raise ValueError(f"records need one row per image in every field, got {counts}")
        if not len(self.images):
            raise ValueError(
                "records are empty: the reader found no image in this split; look at its `split` "
                "and `root`, and at what it leaves out"
            )
        width = len(self.labels[0])
        if width != len(self.class_names):
            raise ValueError(f"labels have {width} columns for {len(self.class_names)} class names")
        object.__setattr__(self, "class_names", check_class_names(self.class_names))
        if isinstance(self.images, list | tuple) and not isinstance(self.images[0], bytes):
            for number, name in enumerate(self.images):
                check_file_name(name, f"image {number}")
        shape = (len(self), width)
        if self.ignored is not None and self.ignored.shape != shape:
            raise ValueError(f"ignored: got shape {self.ignored.shape}, expected {shape}")
        vectors = self.class_vectors
        if vectors is not None and (vectors.ndim != 2 or len(vectors) != width):
            raise ValueError(f"class_vectors: got shape {vectors.shape}, expected ({width}, w)")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> Classes:
        """What is known of the classes."""
        return Classes(names=self.class_names, vectors=self.class_vectors, labels=self.labels)

    def in_class_order(self, names: Sequence[str], of: str) -> "Records":
        """Returns the records with the columns of their labels in another order.

        Args:
          names: all classes, in the order wanted.
          of: what has the classes in this order, for the error.

        Raises:
          ValueError: if these are not the classes of the records; it names what differs.
        """
        names = tuple(names)
        if names == self.class_names:
            return self
        missing = [name for name in names if name not in set(self.class_names)]
        unknown = [name for name in self.class_names if name not in set(names)]
        if missing or unknown:
            raise ValueError(
                f"different classes: {of} alone has {_some(missing)}; the split that is read alone "
                f"has {_some(unknown)}"
            )
        column_of = {name: column for column, name in enumerate(self.class_names)}
        columns = np.array([column_of[name] for name in names])
        labels = self.labels
        if isinstance(labels, SparseLabels):
            labels = labels.with_columns(columns)
        else:
            labels = np.stack([np.asarray(row)[columns] for row in labels])
        ignored = None if self.ignored is None else self.ignored[:, columns]
        vectors = None if self.class_vectors is None else self.class_vectors[columns]
        return dataclasses.replace(
            self, labels=labels, ignored=ignored, class_names=names, class_vectors=vectors
        )

    def name(self, index: int) -> str:
        """Returns what identifies image `index` to a person: its path, or its number."""
        return image_name(self.images[index], index)


def image_name(image: str | bytes | np.ndarray, index: int) -> str:
    """Returns the path of an image, or if it has none, its number."""
    return image if isinstance(image, str) else f"image {index}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10]) or "none"
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
