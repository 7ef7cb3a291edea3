"""Vectors of images and of their labels, their principal axes, and their nearest neighbors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Shaped

from mljax.config.schema import MAX_PIXELS, MatmulPrecision, Preprocessing
from mljax.data.records import Records
from mljax.evaluation.evaluate import in_order_of, run_model
from mljax.evaluation.scores import Rows
from mljax.layers.init import at_least_float32
from mljax.models.classifier import Classifier

# The mean of the backbone's map over space, which every network has.
POOLED = "pooled"


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What a network makes of the images of a split.

    Attributes:
      vectors: `[n, d]` float32, one an image.
      labels: `[n, k]` int8: 1 present, 0 absent, -1 unannotated.
      index: `[n]`, the record of each row; bad images that were skipped have none.
      records: the split.
      layer: where the vectors are from.
      label_layer: where those of the labels are from; None where the head has none.
      pairs: `[m, 2]`, row and class of each present label.
      label_vectors: `[m, e]` float32, of these.
    """

    vectors: Float[np.ndarray, "n d"]
    labels: Shaped[np.ndarray, "n k"]
    index: Int[np.ndarray, " n"]
    records: Records
    layer: str
    label_layer: str | None
    pairs: Int[np.ndarray, "m 2"]
    label_vectors: Float[np.ndarray, "m e"]

    @property
    def names(self) -> list[str]:
        """What identifies each image: its path, or its number."""
        return [self.records.name(int(number)) for number in self.index]


def embed(
    model: Classifier,
    records: Records,
    *,
    layer: str = POOLED,
    preprocessing: Preprocessing | None = None,
    batch_size: int = 64,
    num_workers: int | None = 0,
    bad_images: str = "fail",
    max_pixels: int = MAX_PIXELS,
    cache: str | None = None,
    matmul_precision: MatmulPrecision = "default",
) -> tuple[Embeddings, list[str]]:
    """Returns the vectors of a split, and the names of skipped bad images.

    A head that has a vector for each label, `[b, k, d]`, gives those of the present labels too:
    its `embeddings`, or `layer`, which then leaves `pooled` for the images. The classes of such a
    head are matched by name with the split's; any other network embeds images of any classes.

    Args:
      model: in eval mode.
      records: of a reader.
      layer: an output of the head, or `pooled`: the mean of the backbone's map over space.
      preprocessing: None takes the model's.
      batch_size: images that the network reads at once.
      num_workers: processes that decode; 0 uses threads; see `DataConfig`.
      bad_images: `fail` raises with the file's name, `skip` leaves it out.
      max_pixels: width times height of the largest image that is decoded; a larger one is bad.
      cache: a folder for resized images; see `DataConfig`.
      matmul_precision: see `TrainConfig`.

    Raises:
      ValueError: for a layer that the network has not, with those that it has, or a network without
        preprocessing where none is given.
    """
    preprocessing = preprocessing or model.preprocessing
    if preprocessing is None:
        raise ValueError("the model does not say how its images are prepared: give preprocessing")
    network = _with_pooled(model)
    image_layer, label_layer = _choose(network, layer, preprocessing)
    if label_layer is not None:
        records = in_order_of(model, records)
    collected = _Collected(image_layer, label_layer)
    skipped = run_model(
        network,
        records,
        evaluators=[collected],
        preprocessing=preprocessing,
        batch_size=batch_size,
        num_workers=num_workers,
        bad_images=bad_images,
        max_pixels=max_pixels,
        cache=cache,
        matmul_precision=matmul_precision,
    )
    return collected.embeddings(records), [records.name(number) for number in skipped]


class _WithPooled(nnx.Module):
    """A head whose dict has `pooled` as well."""

    def __init__(self, head: nnx.Module) -> None:
        self.head: Any = head

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        pooled = at_least_float32(features).mean((1, 2))
        return {POOLED: pooled, **self.head(features, rngs=rngs)}


def _with_pooled(model: Classifier) -> Classifier:
    other = Classifier(model.backbone, _WithPooled(model.head), model.spec)
    other.is_folded = model.is_folded
    return other


def _choose(
    network: Classifier, layer: str, preprocessing: Preprocessing
) -> tuple[str, str | None]:
    """Returns the outputs that are the vectors of images and of labels."""
    height, width = preprocessing.height_width
    shapes = jax.eval_shape(network, jax.ShapeDtypeStruct((1, height, width, 3), np.float32))
    classes = network.spec.num_classes
    of_images = [name for name, x in shapes.items() if len(x.shape) == 2]
    of_labels = [name for name, x in shapes.items() if x.ndim == 3 and x.shape[1] == classes]
    if layer in of_labels:
        return POOLED, layer
    if layer in of_images:
        return layer, "embeddings" if "embeddings" in of_labels else None
    raise ValueError(
        f"layer: got {layer!r}, expected one of {', '.join(sorted(of_images + of_labels))}"
    )


class _Collected:
    """An evaluator that keeps vectors and labels."""

    def __init__(self, layer: str, label_layer: str | None) -> None:
        self._layer, self._label_layer = layer, label_layer
        self.reads = (layer,) if label_layer is None else (layer, label_layer)
        self._rows = {
            name: Rows() for name in ("vectors", "labels", "index", "pairs", "label_vectors")
        }
        self._count = 0

    def update(self, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        pairs = np.argwhere(batch["labels"] > 0)
        found = {
            "vectors": np.asarray(outputs[self._layer], np.float32),
            "labels": batch["labels"].astype(np.int8),
            "index": batch["index"],
            "pairs": pairs + np.array([[self._count, 0]]),
            "label_vectors": np.zeros((len(pairs), 0), np.float32),
        }
        if self._label_layer is not None:
            vectors = outputs[self._label_layer][pairs[:, 0], pairs[:, 1]]
            found["label_vectors"] = np.asarray(vectors, np.float32)
        for name, array in found.items():
            self._rows[name].append(array)
        self._count += len(batch["labels"])

    def embeddings(self, records: Records) -> Embeddings:
        arrays = {name: rows.array() for name, rows in self._rows.items()}
        return Embeddings(
            **arrays, records=records, layer=self._layer, label_layer=self._label_layer
        )


def principal_axes(
    vectors: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "2"]]:
    """Returns the vectors along their first two principal axes, and what share of variance each is.

    Every vector is divided by its length first, as the cosine is blind to it. An axis points to
    where its largest coefficient is positive, so that equal vectors give equal pictures.
    """
    unit = _unit(vectors)
    centered = unit - unit.mean(0, keepdims=True)
    _, variances, axes = np.linalg.svd((centered.T @ centered).astype(np.float64))
    axes, variances = axes[:2], variances / max(variances.sum(), np.finfo(np.float64).tiny)
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    # Vectors of one number have one axis.
    missing = 2 - len(axes)
    points = np.pad(centered @ axes.T.astype(np.float32), ((0, 0), (0, missing)))
    return points, np.pad(variances[:2], (0, missing))


def nearest(
    vectors: Float[np.ndarray, "n d"], query: Float[np.ndarray, " d"], count: int
) -> tuple[Int[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Returns the rows with the largest cosines with a vector, at most `count`, and these cosines.

    Of equal cosines the first row comes first.
    """
    cosines = _unit(vectors) @ _unit(query[None])[0]
    order = np.argsort(-cosines, kind="stable")[:count]
    return order, cosines[order]


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.float32(1e-12))
