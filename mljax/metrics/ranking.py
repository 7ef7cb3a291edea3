"""Average precision of each class, and its means."""

import typing
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mljax.metrics.blocks import AnyArray, Table, checked, count_labels

# What the rank of equal scores is.
Ties = Literal["order", "equal"]


def average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    ties: Ties = "order",
    interpolated: bool = False,
) -> Float[np.ndarray, " k"]:
    """Returns the average precision of each class, in [0, 1]: area under the uninterpolated curve.

    The precision at the rank of each positive, averaged over the positives; 0 for a class without
    one.

    Args:
      scores: whatever ranks the images: logits, or probabilities, which in float32 are equal to 1
        for all logits above 17.
      labels: 1 present, 0 absent.
      ignored: entries to leave out.
      ties: among equal scores, `order` ranks the later image first (Parity: the reverse of a stable
        ascending sort), so the value depends on the order of the images, and a network that gives
        one score to all of them has any value up to 1. `equal` gives equal scores the rank of the
        last of them, as scikit-learn does: the value is the same in any order, and such a network
        has the frequency of the class.
      interpolated: take at the rank of each positive the highest precision from there on, as PASCAL
        VOC since 2010 and Query2Label do; it is at least as high.

    Differs from the reference: ASL sorts by an unstable sort, so its value for tied scores depends
    on the platform, and it divides by the number of positives + 1e-8, MulCon by + 1e-6. Of a class
    without a positive the value is nan in Query2Label, and ML-GCN raises.

    Raises:
      ValueError: for arrays that are not `[n, k]` alike, nan scores, labels other than 1, 0 and
        -1, or unannotated labels that are not `ignored`.
    """
    return _average_precision(checked(scores, labels, ignored), ties, interpolated)


def mean_average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    ties: Ties = "order",
    interpolated: bool = False,
    skip_empty_classes: bool = False,
) -> float:
    """Returns the mean of the classes' average precisions (mAP), in [0, 100].

    The figures in the READMEs of ASL and KMCL are this one, for the better of plain and averaged
    weights; KMCL's on VOC leave out the difficult entries (`ignored`).

    Args:
      scores: as for `average_precision`.
      labels: as for `average_precision`.
      ignored: as for `average_precision`.
      ties: as for `average_precision`.
      interpolated: as for `average_precision`.
      skip_empty_classes: leave classes without a positive out of the mean, as the field's standard
        does; ASL and KMCL count them as 0.

    Raises:
      ValueError: as `average_precision`; if all classes are left out.
    """
    ap = average_precision(scores, labels, ignored=ignored, ties=ties, interpolated=interpolated)
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
    ties: Ties = "order",
    interpolated: bool = False,
) -> Float[np.ndarray, " k"]:
    """Returns the average precision of each class over its annotated images, in [0, 1].

    nan for a class that lacks annotated positives or annotated negatives, as its ranking says
    nothing. Alibaba-MIIL/PartialLabelingCSL helper_functions.py, `AP_partial` (which marks such
    classes by -1), https://arxiv.org/abs/2110.10955.

    Args:
      scores: as for `average_precision`.
      labels: as for `average_precision`; -1 is left out.
      ignored: as for `average_precision`.
      ties: as for `average_precision`.
      interpolated: as for `average_precision`.

    Raises:
      ValueError: as `average_precision`, except that unannotated labels are welcome.
    """
    table = checked(scores, labels, ignored, partial=True)
    ap = _average_precision(table, ties, interpolated)
    counts = count_labels(labels, ignored=ignored)
    return np.where((counts.present > 0) & (counts.absent > 0), ap, np.nan)


def partial_mean_average_precision(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    ties: Ties = "order",
    weight_by_positives: bool = False,
) -> float:
    """Returns the mAP over annotated entries, in [0, 100], without the undefined classes.

    Alibaba-MIIL/PartialLabelingCSL helper_functions.py, `mAP_partial`.

    Args:
      scores: as for `average_precision`.
      labels: as for `average_precision`; -1 is left out.
      ignored: as for `average_precision`.
      ties: as for `average_precision`.
      weight_by_positives: weight each class by its number of annotated positives (the second
        figure of the reference, `map_macro`).

    Raises:
      ValueError: as `partial_average_precision`; if it is undefined for every class.
    """
    ap = partial_average_precision(scores, labels, ignored=ignored, ties=ties)
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


def _average_precision(table: Table, ties: Ties, interpolated: bool) -> Float[np.ndarray, " k"]:
    if ties not in typing.get_args(Ties):
        raise ValueError(f"ties: got {ties!r}, expected one of {', '.join(typing.get_args(Ties))}")
    return np.array(
        [
            _class_ap(scores[:, c], labels[:, c], counted[:, c], ties, interpolated)
            for scores, labels, counted in table.class_blocks()
            for c in range(labels.shape[1])
        ]
    )


def _class_ap(
    scores: Shaped[np.ndarray, " n"],
    labels: Shaped[np.ndarray, " n"],
    counted: Bool[np.ndarray, " n"],
    ties: Ties,
    interpolated: bool,
) -> float:
    if not counted.all():
        scores, labels = scores[counted], labels[counted]
    order = np.argsort(scores, kind="stable")[::-1]
    present = labels[order] > 0
    ranks = np.flatnonzero(present) + 1
    if not ranks.size:
        return 0.0
    above = np.arange(1, ranks.size + 1)
    if ties == "equal":
        ranked = scores[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1) + 1
        # The last rank of the group that each positive is in.
        ranks = ends[np.searchsorted(ends, ranks)]
        above = np.cumsum(present)[ranks - 1]
    precision = above / ranks
    if interpolated:
        precision = np.maximum.accumulate(precision[::-1])
    return float(np.mean(precision))
