"""Evaluates a checkpoint: mAP, per-class AP, precision, recall and F1 at a threshold."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mljax.metrics import (
    PrecisionRecallF1,
    average_precision,
    partial_average_precision,
    precision_recall_f1,
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a split and what the metrics say of them.

    Attributes:
      scores: in [0, 1].
      labels: 1 present, 0 absent, -1 unannotated.
      ignored: entries that no metric counts besides the unannotated ones, or None.
      threshold: that of the figures below.
      top_k: limit of predictions per image in `top`.
      partial: whether there are unannotated labels. Then all figures are over annotated entries,
        and the AP of a class without annotations of both kinds is nan.
      average_precision: of each class, in [0, 1].
      mean_average_precision: in percent; nan if partial labels define it for no class.
      overall: at the threshold.
      top: at the threshold, among the highest `top_k` scores of each image.
    """

    scores: Float[np.ndarray, "n k"]
    labels: Shaped[np.ndarray, "n k"]
    ignored: Bool[np.ndarray, "n k"] | None
    threshold: float
    top_k: int
    partial: bool
    average_precision: Float[np.ndarray, " k"]
    mean_average_precision: float
    overall: PrecisionRecallF1
    top: PrecisionRecallF1


def evaluate_scores(
    scores: Float[np.ndarray, "n k"],
    labels: Shaped[np.ndarray, "n k"],
    *,
    ignored: Bool[np.ndarray, "n k"] | None = None,
    threshold: float = 0.8,
    top_k: int = 3,
) -> Evaluation:
    """Returns the metrics of a split: Alibaba-MIIL/ASL's, or over annotated entries if partial.

    Args:
      scores: probabilities.
      labels: 1 present, 0 absent, -1 unannotated.
      ignored: entries to leave out.
      threshold: a class is predicted where its score is above.
      top_k: how many predictions an image may have in `Evaluation.top`.

    Raises:
      ValueError: for what is no array of scores and labels; see `mljax.metrics`.
    """
    partial = bool((labels < 0).any())
    uncounted = ignored
    if partial:
        uncounted = labels < 0 if ignored is None else ignored | (labels < 0)
        ap = partial_average_precision(scores, labels, ignored=ignored)
    else:
        ap = average_precision(scores, labels, ignored=ignored)
    defined = ap[~np.isnan(ap)]
    return Evaluation(
        scores=scores,
        labels=labels,
        ignored=ignored,
        threshold=threshold,
        top_k=top_k,
        partial=partial,
        average_precision=ap,
        mean_average_precision=100 * float(defined.mean()) if defined.size else float("nan"),
        overall=precision_recall_f1(scores, labels, ignored=uncounted, threshold=threshold),
        top=precision_recall_f1(
            scores, labels, ignored=uncounted, threshold=threshold, top_k=top_k
        ),
    )


def collect_scores(
    score: Callable[[dict[str, np.ndarray]], Mapping[str, Any]],
    batches: Iterable[dict[str, np.ndarray]],
) -> tuple[
    Float[np.ndarray, "n k"],
    Float[np.ndarray, "n k"],
    Bool[np.ndarray, "n k"] | None,
    list[int],
]:
    """Returns what the network says of every image, in the order of the records.

    Args:
      score: a batch to the same batch with `scores`, in [0, 1], in place of the images, as
        `mljax.train_step.make_eval_step` does it; with several hosts it takes this host's rows
        and returns everybody's.
      batches: of `mljax.data.pipeline.eval_batches`.

    Returns:
      Scores, labels, the `ignored` mask or None, and the record numbers of bad images that were
      skipped, which the arrays leave out.

    Raises:
      ValueError: if there is no valid image.
    """
    rows = [{key: np.asarray(value) for key, value in score(batch).items()} for batch in batches]
    if not rows:
        raise ValueError("nothing to evaluate: there is no batch")
    table = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    order = np.argsort(table["index"], kind="stable")
    table = {key: value[order] for key, value in table.items()}
    valid = table["valid"]
    skipped = table["index"][~valid & (table["index"] >= 0)].tolist()
    if not valid.any():
        raise ValueError(f"nothing to evaluate: all {len(skipped)} images were skipped as bad")
    ignored = table["ignored"][valid] if "ignored" in table else None
    return table["scores"][valid], table["labels"][valid], ignored, skipped
