"""Metrics of multi-label classification, as the published systems compute them.

Scores and labels are numpy or jax arrays `[n, k]` of n images and k classes: any numbers that rank
the images of a class (probabilities where a threshold is involved), and 1 present, 0 absent, -1
unannotated. An `ignored` mask `[n, k]` leaves single entries out (VOC's *difficult*).

Alibaba-MIIL/ASL validate.py and helper_functions.py (https://arxiv.org/abs/2009.14119) are the
default. Arguments choose what mahdihosseini/KMCL meters.py and the field's standard do otherwise.

Arrays larger than memory may be memory maps. No metric holds more of them at once than a block of
`BLOCK_BYTES`: whole classes for what ranks images, whole images for what counts. The figures are
the same to the last bit whatever the size of the blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

# Of scores, labels, masks and what is made of them: 134 classes of 125,000 images at a time.
BLOCK_BYTES = 2**28

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
    return _average_precision(_checked(scores, labels, ignored))


def mean_average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    skip_empty_classes: bool = False,
) -> float:
    """Returns the mean of the classes' average precisions (mAP), in [0, 100].

    The figures in the READMEs of ASL and KMCL are this one, for the better of plain and averaged
    weights; KMCL's on VOC leave out the difficult entries (`ignored`).

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
        ap = ap[count_labels(labels, ignored=ignored).present > 0]
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
    ap = _average_precision(_checked(scores, labels, ignored, partial=True))
    counts = count_labels(labels, ignored=ignored)
    return np.where((counts.present > 0) & (counts.absent > 0), ap, np.nan)


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
        weights = count_labels(labels, ignored=ignored).present
    return 100.0 * float(np.average(ap[defined], weights=weights[defined]))


class LabelCounts(NamedTuple):
    """How many images each class is present in, absent from, and unannotated for."""

    present: Int[np.ndarray, " k"]
    absent: Int[np.ndarray, " k"]
    unannotated: Int[np.ndarray, " k"]


def count_labels(labels: AnyArray, *, ignored: AnyArray | None = None) -> LabelCounts:
    """Returns the numbers of labels of each kind that are not ignored.

    Raises:
      ValueError: for labels that are no array `[n, k]`.
    """
    table = _Table(*_same_shape(labels, labels, ignored), partial=False)
    counts = np.zeros((3, table.labels.shape[1]), np.int64)
    for _, block, counted in table.row_blocks():
        for row, value in enumerate((1, 0, -1)):
            counts[row] += np.count_nonzero((block == value) & counted, axis=0)
    return LabelCounts(*counts)


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
    precision: Float[np.ndarray, " k"]
    recall: Float[np.ndarray, " k"]
    f1: Float[np.ndarray, " k"]


def precision_recall_f1(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    partial: bool = False,
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
      labels: as for `average_precision`.
      ignored: entries that count neither as a hit nor as a miss. KMCL counts VOC's difficult ones
        as negatives: leave this out for its figures.
      partial: leave unannotated labels out, too, instead of raising.
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
    table = _checked(scores, labels, ignored, partial=partial)
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: got {top_k}, expected at least 1, or None for no limit")
    hits, predictions, positives, entries = np.zeros((4, table.labels.shape[1]), np.int64)
    for block, block_labels, counted in table.row_blocks():
        predicted = block >= threshold if inclusive else block > threshold
        if top_k is not None and top_k < block.shape[1]:
            predicted &= _top_k(block, top_k)
        predicted &= counted
        present = (block_labels > 0) & counted
        hits += np.count_nonzero(predicted & present, axis=0)
        predictions += np.count_nonzero(predicted, axis=0)
        positives += np.count_nonzero(present, axis=0)
        entries += np.count_nonzero(counted, axis=0)
    if count_unpredicted_classes:
        predictions = np.maximum(predictions, 1)
    counts = entries > 0
    precision = np.where(counts, _quotient(hits, predictions), np.nan)
    recall = np.where(counts, _quotient(hits, positives), np.nan)
    f1 = _harmonic(precision, recall)
    op = _quotient(hits.sum(keepdims=True), predictions.sum(keepdims=True))
    or_ = _quotient(hits.sum(keepdims=True), positives.sum(keepdims=True))
    cp, cr, cf1 = (_mean(x[counts]) for x in (precision, recall, f1))
    if harmonic_class_f1:
        cf1 = _harmonic(cp, cr)
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


def _average_precision(table: "_Table") -> Float[np.ndarray, " k"]:
    return np.array(
        [
            _class_ap(scores[:, c], labels[:, c], counted[:, c])
            for scores, labels, counted in table.class_blocks()
            for c in range(labels.shape[1])
        ]
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


def _mean(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " 1"]:
    """Returns the mean; nan of nothing."""
    return values.mean(keepdims=True) if values.size else np.array([np.nan])


def _harmonic(a: Float[np.ndarray, " k"], b: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    return _quotient(2 * a * b, a + b)


@dataclass(frozen=True)
class _Table:
    """Arrays of one shape `[n, k]`, and whether unannotated labels are left out.

    Blocks of it are scores as float32 or float64, labels, and which entries count.
    """

    scores: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray | None
    partial: bool

    def row_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields all classes of some images at a time, in order."""
        for rows in self._slices(*self.labels.shape):
            yield self._block(rows, slice(None))

    def class_blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields all images of some classes at a time, in order."""
        for classes in self._slices(*self.labels.shape[::-1]):
            yield self._block(slice(None), classes)

    def _slices(self, length: int, width: int) -> Iterator[slice]:
        # Scores of up to eight bytes, a label, a mask, and room for what is made of them.
        step = max(BLOCK_BYTES // (16 * width), 1)
        return (slice(first, first + step) for first in range(0, length, step))

    def _block(self, rows: slice, classes: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Of a memory map this is a copy: the ranking reads its columns again and again.
        scores, labels = (np.array(x[rows, classes]) for x in (self.scores, self.labels))
        if scores.dtype not in (np.float32, np.float64):
            scores = scores.astype(np.float32 if scores.dtype.itemsize == 2 else np.float64)
        counted = labels >= 0 if self.partial else np.ones(labels.shape, bool)
        if self.ignored is not None:
            counted &= ~self.ignored[rows, classes].astype(bool)
        return scores, labels, counted


def _same_shape(
    scores: AnyArray, labels: AnyArray, ignored: AnyArray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns the arrays as numpy's; raises where they are no arrays `[n, k]` of one shape."""
    arrays = [np.asarray(scores), np.asarray(labels)]
    if ignored is not None:
        arrays.append(np.asarray(ignored))
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != 2 or not arrays[0].size or len(set(shapes)) > 1:
        raise ValueError(
            "expected scores, labels and the ignored mask as arrays [n, k] of one shape, none of "
            f"it 0; got {', '.join(map(str, shapes))}"
        )
    return arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else None


def _checked(
    scores: AnyArray, labels: AnyArray, ignored: AnyArray | None, *, partial: bool = False
) -> _Table:
    """Returns the arrays as a table; raises on what is no such array."""
    table = _Table(*_same_shape(scores, labels, ignored), partial)
    nans = unknown = missing = 0
    for block, block_labels, counted in table.row_blocks():
        nans += np.count_nonzero(np.isnan(block))
        unannotated = block_labels == -1
        known = unannotated | (block_labels == 0) | (block_labels == 1)
        unknown += known.size - np.count_nonzero(known)
        missing += np.count_nonzero(unannotated & counted)
    size = table.labels.size
    if nans:
        raise ValueError(f"scores: {nans} of {size} are nan; look for the cause upstream")
    if unknown:
        raise ValueError(
            f"labels: {unknown} of {size} are neither 1 (present), 0 (absent) nor -1 (unannotated)"
        )
    if missing:
        raise ValueError(
            f"labels: {missing} of {size} are -1 (unannotated); for partial labels call "
            "partial_average_precision or partial_mean_average_precision, or precision_recall_f1 "
            "with partial=True"
        )
    return table
