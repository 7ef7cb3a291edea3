"""Predictions for image files, made as they are asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mljax.config.schema import MAX_PIXELS, MatmulPrecision, Preprocessing
from mljax.data.images import load_image
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records
from mljax.devices.ahead import begin_ahead
from mljax.evaluation.decisions import decision_of
from mljax.evaluation.image_files import find_images
from mljax.evaluation.scores import sigmoid
from mljax.models.classifier import Classifier
from mljax.models.inference import MakeApply, make_apply, whole_batch

__all__ = ["Prediction", "Predictor", "find_images", "predict"]


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


class Predictor:
    """A network made ready for image files: `predictor(paths)` returns their predictions.

    The network runs in batches, on all local devices. It is compiled at the first batch of a size:
    the last batch is padded, and fewer images than a batch are padded to a power of two. Networks
    of one structure share what is compiled. The weights are those at the time of the making.

    Args:
      model: in eval mode. A model without class names gives the class numbers, from 0, as names.
      threshold: a class is predicted where its score is above; None takes the network's calibrated
        thresholds, or 0.8 if it has none.
      top_k: only the k highest scores can be above the threshold; None is no limit.
      batch_size: images that the network reads at once.
      preprocessing: None takes the model's.
      max_pixels: width times height of the largest image that is decoded; a larger one is bad.
      make: what runs the network, of `mljax.formats.RUNTIMES`.
      matmul_precision: see `TrainConfig`.

    Raises:
      ValueError: if neither the model nor the caller gives a preprocessing, or for a top_k,
        batch_size or max_pixels below 1.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        batch_size: int = 32,
        preprocessing: Preprocessing | None = None,
        max_pixels: int = MAX_PIXELS,
        make: MakeApply = make_apply,
        matmul_precision: MatmulPrecision = "default",
    ) -> None:
        preprocessing = preprocessing or model.preprocessing
        if preprocessing is None:
            raise ValueError(
                "the model does not say how its images are prepared: give `preprocessing` "
                "(--image-size or --config on the command line)"
            )
        decide = decision_of(model, threshold)
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
        if max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {max_pixels}")
        self._names = model.class_names or tuple(str(c) for c in range(model.spec.num_classes))
        self._apply = make(model, preprocessing=preprocessing, matmul_precision=matmul_precision)
        self._preprocessing = preprocessing
        self._decide, self._top_k = decide, top_k
        self._batch_size, self._max_pixels = batch_size, max_pixels

    def __call__(self, paths: Sequence[str | Path]) -> Iterator[Prediction]:
        """Returns predictions for all images, in order, made as they are asked for.

        A bad image does not stop the others: its prediction has an `error`.
        """
        images = [str(path) for path in paths]
        return self._predict(images) if images else iter(())

    def _predict(self, images: list[str]) -> Iterator[Prediction]:
        unknown = np.broadcast_to(np.int8(-1), (len(images), len(self._names)))
        # Few sizes of batches are compiled, whatever the numbers of images.
        at_once = min(self._batch_size, 1 << (len(images) - 1).bit_length())
        batches = eval_batches(
            Records(images=images, labels=unknown, class_names=self._names),
            preprocessing=self._preprocessing,
            batch_size=whole_batch(at_once),
            bad_images="skip",
            max_pixels=self._max_pixels,
        )
        with batches:
            ahead = begin_ahead(batches, lambda batch: self._apply(batch["images"]), 1)
            for batch, outputs in ahead:
                logits = np.asarray(outputs["logits"], np.float32)
                scores, predicted = sigmoid(logits), self._decide(logits)
                for row in np.flatnonzero(batch["index"] >= 0):
                    path = images[batch["index"][row]]
                    if batch["valid"][row]:
                        labels = _labels(scores[row], predicted[row], self._names, self._top_k)
                        yield Prediction(path=path, labels=labels, scores=scores[row])
                    else:
                        reason = _reason(path, self._max_pixels)
                        yield Prediction(path=path, labels=(), scores=None, error=reason)


def predict(
    model: Classifier,
    paths: Sequence[str | Path],
    *,
    threshold: float | None = None,
    top_k: int | None = None,
    batch_size: int = 32,
    preprocessing: Preprocessing | None = None,
    max_pixels: int = MAX_PIXELS,
    make: MakeApply = make_apply,
    matmul_precision: MatmulPrecision = "default",
) -> Iterator[Prediction]:
    """Returns predictions for all images, in order, made as they are asked for.

    The arguments are those of `Predictor`, which takes less time for many small calls. What was
    compiled for one call serves the next.

    Raises:
      ValueError: as `Predictor`.
    """
    predictor = Predictor(
        model,
        threshold=threshold,
        top_k=top_k,
        batch_size=batch_size,
        preprocessing=preprocessing,
        max_pixels=max_pixels,
        make=make,
        matmul_precision=matmul_precision,
    )
    return predictor(paths)


def _labels(
    scores: Float[np.ndarray, " k"],
    predicted: Bool[np.ndarray, " k"],
    names: Sequence[str],
    top_k: int | None,
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple((names[int(c)], float(scores[c])) for c in order if predicted[c])


def _reason(path: str, max_pixels: int) -> str:
    """Returns why an image cannot be read; the pipeline only says that it cannot."""
    try:
        load_image(path, max_pixels=max_pixels)
    except ValueError as error:
        return str(error)
    return f"{path}: could not be read, but can be now; was it still being written?"
