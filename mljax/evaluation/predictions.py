"""Predictions for image files, made as they are asked for."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mljax.config.schema import Preprocessing
from mljax.data.images import load_image
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records
from mljax.evaluation.scores import sigmoid
from mljax.models.classifier import Classifier
from mljax.models.inference import make_apply, whole_batch

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of one image.

    Attributes:
      path: of the image.
      labels: name and score of each predicted class, the highest score first.
      scores: of all classes, in [0, 1]; None for a bad image.
      error: why the image could not be read, or None.
    """

    path: str
    labels: tuple[tuple[str, float], ...]
    scores: Float[np.ndarray, " k"] | None
    error: str | None = None


def predict(
    model: Classifier,
    paths: Sequence[str | Path],
    *,
    threshold: float = 0.8,
    top_k: int | None = None,
    batch_size: int = 32,
    preprocessing: Preprocessing | None = None,
) -> Iterator[Prediction]:
    """Returns predictions for all images, in order, made as they are asked for.

    The network runs in batches, on all local devices. A bad image does not stop the others: its
    prediction has an `error`.

    Args:
      model: in eval mode. A model without class names gives the class numbers, from 0, as names.
      paths: image files.
      threshold: a class is predicted where its score is above.
      top_k: only the k highest scores can be above the threshold; None is no limit.
      batch_size: images that the network reads at once.
      preprocessing: None takes the model's.

    Raises:
      ValueError: if neither the model nor the caller gives a preprocessing, or for a top_k or
        batch_size below 1.
    """
    preprocessing = preprocessing or model.preprocessing
    if preprocessing is None:
        raise ValueError(
            "the model does not say how its images are prepared: give `preprocessing` "
            "(--image-size N on the command line)"
        )
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1, got {threshold}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if not paths:
        return iter(())
    images = [str(path) for path in paths]
    return _predict(model, images, threshold, top_k, batch_size, preprocessing)


def _predict(
    model: Classifier,
    images: list[str],
    threshold: float,
    top_k: int | None,
    batch_size: int,
    preprocessing: Preprocessing,
) -> Iterator[Prediction]:
    number = model.spec.num_classes
    names = model.class_names or tuple(str(c) for c in range(number))
    unknown = np.broadcast_to(np.int8(-1), (len(images), number))
    batches = eval_batches(
        Records(images=images, labels=unknown, class_names=names),
        preprocessing=preprocessing,
        batch_size=whole_batch(min(batch_size, len(images))),
        bad_images="skip",
    )
    apply = make_apply(model)
    with batches:
        for batch in batches:
            scores = sigmoid(np.asarray(apply(batch["images"])["logits"], np.float32))
            for row in np.flatnonzero(batch["index"] >= 0):
                path = images[batch["index"][row]]
                if batch["valid"][row]:
                    labels = _labels(scores[row], names, threshold, top_k)
                    yield Prediction(path=path, labels=labels, scores=scores[row])
                else:
                    yield Prediction(path=path, labels=(), scores=None, error=_reason(path))


def _labels(
    scores: Float[np.ndarray, " k"], names: Sequence[str], threshold: float, top_k: int | None
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple((names[int(c)], float(scores[c])) for c in order if scores[c] > threshold)


def _reason(path: str) -> str:
    """Returns why an image cannot be read; the pipeline only says that it cannot."""
    try:
        load_image(path)
    except ValueError as error:
        return str(error)
    return f"{path}: could not be read, but can be now; was it still being written?"


def find_images(patterns: Sequence[str]) -> list[str]:
    """Returns the image files that files, folders and globs stand for, each once.

    A folder stands for all images in it and below it, sorted. What stands for nothing is returned
    as it is, so that it is reported as an image that cannot be read.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = [Path(pattern)]
        if not matches[0].exists():
            matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        for match in matches:
            if match.is_dir():
                below = sorted(p for p in match.rglob("*") if p.suffix.lower() in SUFFIXES)
                found += [str(p) for p in below] or [str(match)]
            else:
                found.append(str(match))
        if not matches:
            found.append(pattern)
    return list(dict.fromkeys(found))
