"""Precision, recall and F1 of the classes that a threshold predicts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mljax.metrics.blocks import AnyArray, checked


@dataclass(frozen=True, kw_only=True)
class PrecisionRecallF1:
    """Precision, recall and F1 at a threshold, in percent.

    Three means go by the same names in the literature: over all entries (O), over the classes (C)
    and over the images (I). Tables call the first two OP to CF1, whatever was computed.

    Attributes:
      OP: overall precision, over all entries.
      OR: overall recall.
      OF1: harmonic mean of OP and OR.
      CP: mean of the classes' precisions.
      CR: mean of the classes' recalls.
      CF1: mean of the classes' F1, or the harmonic mean of CP and CR.
      IP: mean of the images' precisions: what tosfaq/deep-object-reid (AAM) prints as the mean over
        the classes. An image without a hit has 0, also if nothing is predicted nor present; one
        without an entry that counts is left out.
      IR: mean of the images' recalls.
      IF1: mean of the images' F1.
      precision: of each class; nan for one without an entry that counts, which CP, CR and CF1
        leave out.
      recall: of each class.
      f1: of each class.
    """

    OP: float
    OR: float
    OF1: float
    CP: float
    CR: float
    CF1: float
    IP: float
    IR: float
    IF1: float
    precision: Float[np.ndarray, " k"]
    recall: Float[np.ndarray, " k"]
    f1: Float[np.ndarray, " k"]


def precision_recall_f1(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    partial: bool = False,
    threshold: float | Float[np.ndarray, " k"] = 0.8,
    top_k: int | None = None,
    link: Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]] | None = None,
    inclusive: bool = False,
    count_unpredicted_classes: bool = False,
    harmonic_class_f1: bool = False,
) -> PrecisionRecallF1:
    """Returns precision, recall and F1 of the classes whose score passes the threshold.

    The defaults are ASL's; KMCL's are the last three arguments at True (as fractions there).

    Differs from the reference: a quotient 0 / 0 is 0. ASL has nan for OP and OF1 when nothing is
    predicted, KMCL for OR and CR (and 0 for CF1) when a class has no positive.

    Args:
      scores: compared with the threshold in their own precision; half precision is widened first.
      labels: as for `average_precision`.
      ignored: entries that count neither as a hit nor as a miss. KMCL counts VOC's difficult ones
        as negatives: leave this out for its figures.
      partial: leave unannotated labels out, too, instead of raising.
      threshold: a class is predicted where its score is above: one for all, or one for each.
      top_k: only the highest k scores of an image are predicted; among equal ones the lower class
        index goes first. Ignored entries keep their places.
      link: makes scores of what is given, such as the sigmoid of logits, for the threshold. What is
        given itself decides which are the highest.
      inclusive: also predict scores equal to the threshold.
      count_unpredicted_classes: take the number of predictions of a class as at least 1, which
        lowers OP.
      harmonic_class_f1: CF1 from CP and CR, the field's standard, instead of the mean of F1.

    Raises:
      ValueError: as `average_precision`, or for a top_k below 1.
    """
    table = checked(scores, labels, ignored, partial=partial)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: got {top_k}, expected at least 1, or None for no limit")
    hits, predictions, positives, entries = np.zeros((4, table.labels.shape[1]), np.int64)
    of_images = np.zeros((4, table.labels.shape[0]), np.int64)
    first = 0
    for block, block_labels, counted in table.row_blocks():
        scored = block if link is None else link(block)
        predicted = scored >= threshold if inclusive else scored > threshold
        if top_k is not None and top_k < block.shape[1]:
            predicted &= _top_k(block, top_k)
        predicted &= counted
        present = (block_labels > 0) & counted
        kinds = (predicted & present, predicted, present, counted)
        for of_classes, kind in zip((hits, predictions, positives, entries), kinds, strict=True):
            of_classes += np.count_nonzero(kind, axis=0)
        for row, kind in zip(of_images, kinds, strict=True):
            row[first : first + len(block)] = np.count_nonzero(kind, axis=1)
        first += len(block)
    if count_unpredicted_classes:
        predictions = np.maximum(predictions, 1)
    counts = entries > 0
    precision = np.where(counts, _quotient(hits, predictions), np.nan)
    recall = np.where(counts, _quotient(hits, positives), np.nan)
    # From the counts: exact, as `best_f1_thresholds` computes it.
    f1 = np.where(counts, _quotient(2 * hits, predictions + positives), np.nan)
    op = _quotient(hits.sum(keepdims=True), predictions.sum(keepdims=True))
    or_ = _quotient(hits.sum(keepdims=True), positives.sum(keepdims=True))
    cp, cr, cf1 = (_mean(x[counts]) for x in (precision, recall, f1))
    if harmonic_class_f1:
        cf1 = _harmonic(cp, cr)
    of_images = of_images[:, of_images[3] > 0]
    ip = _mean(_quotient(of_images[0], of_images[1]))
    ir = _mean(_quotient(of_images[0], of_images[2]))
    if1 = _mean(_quotient(2 * of_images[0], of_images[1] + of_images[2]))
    return PrecisionRecallF1(
        OP=100.0 * op.item(),
        OR=100.0 * or_.item(),
        OF1=100.0 * _harmonic(op, or_).item(),
        CP=100.0 * cp.item(),
        CR=100.0 * cr.item(),
        CF1=100.0 * cf1.item(),
        IP=100.0 * ip.item(),
        IR=100.0 * ir.item(),
        IF1=100.0 * if1.item(),
        precision=100.0 * precision,
        recall=100.0 * recall,
        f1=100.0 * f1,
    )


def _top_k(scores: Float[np.ndarray, "n k"], count: int) -> Bool[np.ndarray, "n k"]:
    """Returns whether each score is among the highest `count` of its row."""
    lowest = np.partition(scores, -count, axis=1)[:, -count][:, None]
    chosen = scores >= lowest
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > count)
    rows, lowest = scores[crowded], lowest[crowded]
    room = count - np.count_nonzero(rows > lowest, axis=1)[:, None]
    chosen[crowded] &= (rows > lowest) | (np.cumsum(rows == lowest, axis=1) <= room)
    return chosen


def _quotient(
    part: Shaped[np.ndarray, " k"], whole: Shaped[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    return part / np.where(whole == 0, 1, whole)


def _mean(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " 1"]:
    """Returns the mean; nan of nothing."""
    return values.mean(keepdims=True) if values.size else np.array([np.nan])


def _harmonic(a: Float[np.ndarray, " k"], b: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return _quotient(2 * a * b, a + b)
