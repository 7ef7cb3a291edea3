"""Metrics of multi-label classification, as the published systems compute them.

Scores and labels are numpy or jax arrays `[n, k]` of n images and k classes: any numbers that rank
the images of a class (probabilities where a threshold is involved), and 1 present, 0 absent, -1
unannotated. An `ignored` mask `[n, k]` leaves single entries out (VOC's *difficult*).

Alibaba-MIIL/ASL validate.py and helper_functions.py (https://arxiv.org/abs/2009.14119) are the
default. Arguments choose what mahdihosseini/KMCL meters.py and the field's standard do otherwise.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

# [n, k]; the type leaves the shape open, so that a wrong one meets the error that explains it.
AnyArray = Shaped[np.ndarray | Array, "..."]


def average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
) -> Float[np.ndarray, " k"]:
    """Returns the average precision of each class, in [0, 1]: area under the uninterpolated curve.

    The precision at the rank of each positive, averaged over the positives; 0 for a class without
    one. Among equal scores the later image ranks first (the reverse of a stable ascending sort).

    Differs from the reference: ASL sorts by an unstable sort, so its value for tied scores depends
    on the platform, and it divides by the number of positives + 1e-8.

    Raises:
      ValueError: for arrays that are not `[n, k]` alike, nan scores, labels other than 1, 0 and
        -1, or unannotated labels that are not `ignored`.
    """
    scores, labels, counted = _checked(scores, labels, ignored)
    columns = range(labels.shape[1])
    return np.array([_class_ap(scores[:, c], labels[:, c], counted[:, c]) for c in columns])


def mean_average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    skip_empty_classes: bool = False,
) -> float:
    """Returns the mean of the classes' average precisions (mAP), in [0, 100].

    Args:
      scores: as for `average_precision`.
      labels: as for `average_precision`.
      ignored: as for `average_precision`.
      skip_empty_classes: leave classes without a positive out of the mean, as the field's standard
        does; ASL and KMCL count them as 0.

    Raises:
      ValueError: as `average_precision`; if all classes are left out.
    """
    ap = average_precision(scores, labels, ignored=ignored)
    if skip_empty_classes:
        _, labels, counted = _checked(scores, labels, ignored)
        ap = ap[((labels > 0) & counted).any(axis=0)]
        if not ap.size:
            raise ValueError("no class has a positive: the mean over such classes is undefined")
    return 100.0 * float(ap.mean())


def partial_average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
) -> Float[np.ndarray, " k"]:
    """Returns the average precision of each class over its annotated images, in [0, 1].

    nan for a class that lacks annotated positives or annotated negatives, as its ranking says
    nothing. Alibaba-MIIL/PartialLabelingCSL helper_functions.py, `AP_partial` (which marks such
    classes by -1), https://arxiv.org/abs/2110.10955.

    Raises:
      ValueError: as `average_precision`, except that unannotated labels are welcome.
    """
    ignored = _unannotated_too(labels, ignored)
    ap = average_precision(scores, labels, ignored=ignored)
    both = _count(labels, ignored, 1) * _count(labels, ignored, 0) > 0
    return np.where(both, ap, np.nan)


def partial_mean_average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    weight_by_positives: bool = False,
) -> float:
    """Returns the mAP over annotated entries, in [0, 100], without the undefined classes.

    Alibaba-MIIL/PartialLabelingCSL helper_functions.py, `mAP_partial`.

    Args:
      scores: as for `average_precision`.
      labels: as for `average_precision`; -1 is left out.
      ignored: as for `average_precision`.
      weight_by_positives: weight each class by its number of annotated positives (the second
        figure of the reference, `map_macro`).

    Raises:
      ValueError: as `partial_average_precision`; if it is undefined for every class.
    """
    ap = partial_average_precision(scores, labels, ignored=ignored)
    defined = ~np.isnan(ap)
    if not defined.any():
        raise ValueError(
            "no class has both a positive and a negative annotation: mAP is undefined; evaluate "
            "more images or annotate more of them"
        )
    weights = np.ones_like(ap)
    if weight_by_positives:
        weights = _count(labels, _unannotated_too(labels, ignored), 1)
    return 100.0 * float(np.average(ap[defined], weights=weights[defined]))


@dataclass(frozen=True, kw_only=True)
class PrecisionRecallF1:
    """Precision, recall and F1 at a threshold, in percent.

    Attributes:
      OP: overall precision, over all entries.
      OR: overall recall.
      OF1: harmonic mean of OP and OR.
      CP: mean of the classes' precisions.
      CR: mean of the classes' recalls.
      CF1: mean of the classes' F1, or the harmonic mean of CP and CR.
      precision: of each class.
      recall: of each class.
      f1: of each class.
    """

    OP: float
    OR: float
    OF1: float
    CP: float
    CR: float
    CF1: float
    precision: Float[np.ndarray, " k"]
    recall: Float[np.ndarray, " k"]
    f1: Float[np.ndarray, " k"]


def precision_recall_f1(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    threshold: float = 0.8,
    top_k: int | None = None,
    inclusive: bool = False,
    count_unpredicted_classes: bool = False,
    harmonic_class_f1: bool = False,
) -> PrecisionRecallF1:
    """Returns precision, recall and F1 of the classes whose score passes the threshold.

    The defaults are ASL's; KMCL's are the last three arguments at True (as fractions there).

    Differs from the reference: a quotient 0 / 0 is 0. ASL has nan for OP and OF1 when nothing is
    predicted, KMCL for OR and CR (and 0 for CF1) when a class has no positive.

    Args:
      scores: compared with the threshold in their own precision.
      labels: as for `average_precision`; for partial labels give `ignored=labels < 0`.
      ignored: entries that count neither as a hit nor as a miss. KMCL counts VOC's difficult ones
        as negatives: leave this out for its figures.
      threshold: a class is predicted where its score is above.
      top_k: only the highest k scores of an image are predicted; among equal ones the lower class
        index goes first. Ignored entries keep their places.
      inclusive: also predict scores equal to the threshold.
      count_unpredicted_classes: take the number of predictions of a class as at least 1, which
        lowers OP.
      harmonic_class_f1: CF1 from CP and CR, the field's standard, instead of the mean of F1.

    Raises:
      ValueError: as `average_precision`, or for a top_k below 1.
    """
    scores, labels, counted = _checked(scores, labels, ignored)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: got {top_k}, expected at least 1, or None for no limit")
    predicted = scores >= threshold if inclusive else scores > threshold
    if top_k is not None and top_k < scores.shape[1]:
        predicted &= _top_k(scores, top_k)
    predicted &= counted
    present = (labels > 0) & counted
    hits = np.count_nonzero(predicted & present, axis=0)
    predictions = np.count_nonzero(predicted, axis=0)
    positives = np.count_nonzero(present, axis=0)
    if count_unpredicted_classes:
        predictions = np.maximum(predictions, 1)
    precision, recall = _quotient(hits, predictions), _quotient(hits, positives)
    f1 = _harmonic(precision, recall)
    op = _quotient(hits.sum(keepdims=True), predictions.sum(keepdims=True))
    or_ = _quotient(hits.sum(keepdims=True), positives.sum(keepdims=True))
    cp, cr = precision.mean(keepdims=True), recall.mean(keepdims=True)
    cf1 = _harmonic(cp, cr) if harmonic_class_f1 else f1.mean(keepdims=True)
    return PrecisionRecallF1(
        OP=100.0 * op.item(),
        OR=100.0 * or_.item(),
        OF1=100.0 * _harmonic(op, or_).item(),
        CP=100.0 * cp.item(),
        CR=100.0 * cr.item(),
        CF1=100.0 * cf1.item(),
        precision=100.0 * precision,
        recall=100.0 * recall,
        f1=100.0 * f1,
    )


def _class_ap(
    scores: Shaped[np.ndarray, " n"],
    labels: Shaped[np.ndarray, " n"],
    counted: Bool[np.ndarray, " n"],
) -> float:
    if not counted.all():
        scores, labels = scores[counted], labels[counted]
    order = np.argsort(scores, kind="stable")[::-1]
    ranks = np.flatnonzero(labels[order] > 0) + 1
    if not ranks.size:
        return 0.0
    return float(np.mean(np.arange(1, ranks.size + 1) / ranks))


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


def _harmonic(a: Float[np.ndarray, " k"], b: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return _quotient(2 * a * b, a + b)


def _count(labels: AnyArray, ignored: Bool[np.ndarray, "n k"], value: int) -> Int[np.ndarray, " k"]:
    return np.count_nonzero((np.asarray(labels) == value) & ~ignored, axis=0)


def _unannotated_too(labels: AnyArray, ignored: AnyArray | None) -> Bool[np.ndarray, "..."]:
    unannotated = np.asarray(labels) < 0
    return unannotated if ignored is None else unannotated | np.asarray(ignored, bool)


def _checked(
    scores: AnyArray, labels: AnyArray, ignored: AnyArray | None
) -> tuple[Float[np.ndarray, "n k"], Shaped[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
    """Returns the arrays as numpy's, and which entries count; raises on what is no such array."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float32 if scores.dtype.itemsize == 2 else np.float64)
    counted = np.ones(labels.shape, bool) if ignored is None else ~np.asarray(ignored, bool)
    if scores.ndim != 2 or not scores.size or not scores.shape == labels.shape == counted.shape:
        raise ValueError(
            "expected scores, labels and the ignored mask as arrays [n, k] of one shape, none of "
            f"it 0; got {scores.shape}, {labels.shape} and {counted.shape}"
        )
    if nans := np.count_nonzero(np.isnan(scores)):
        raise ValueError(f"scores: {nans} of {scores.size} are nan; look for the cause upstream")
    unannotated = labels == -1
    if unknown := labels.size - np.count_nonzero((labels == 0) | (labels == 1) | unannotated):
        raise ValueError(
            f"labels: {unknown} of {labels.size} are neither 1 (present), 0 (absent) nor -1 "
            "(unannotated)"
        )
    if missing := np.count_nonzero(unannotated & counted):
        raise ValueError(
            f"labels: {missing} of {labels.size} are -1 (unannotated); for partial labels call "
            "partial_average_precision or partial_mean_average_precision, or leave them out by "
            "ignored=labels < 0"
        )
    return scores, labels, counted
