"""A threshold for each class, chosen for its F1."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mljax.metrics.blocks import AnyArray, checked


class Thresholds(NamedTuple):
    """The threshold of each class and its F1 there, in percent; nan where a class has none."""

    values: Float[np.ndarray, " k"]
    f1: Float[np.ndarray, " k"]


def best_f1_thresholds(
    scores: AnyArray,
    labels: AnyArray,
    *,
    ignored: AnyArray | None = None,
    partial: bool = False,
    at_scores: bool = False,
    undefined_is_best: bool = False,
) -> Thresholds:
    """Returns for each class the threshold above which predicting it has the highest F1.

    The threshold lies midway between the lowest score that is predicted and the next one below, so
    that neither side is lost to rounding: `precision_recall_f1` at these thresholds gives exactly
    these F1, with ties and in half precision too. If every image is predicted, the threshold is 1
    below the lowest score. Of several thresholds with the highest F1 it is the lowest. A class
    without a positive has none: nan.

    Prokofiev and Sovrasov, "Combining Metric Learning and Attention Heads",
    https://arxiv.org/abs/2209.06585, section 4.4; tosfaq/deep-object-reid
    torchreid/metrics/classification.py, which the last two arguments follow.

    Args:
      scores: of the images on which the thresholds are chosen: logits, since in float32 all above
        17 have one probability. Half precision is widened first.
      labels: as for `average_precision`.
      ignored: as for `average_precision`.
      partial: leave unannotated labels out instead of raising.
      at_scores: the threshold is the lowest score that is predicted itself. There it is compared by
        `>` all the same, which loses that image. A class without a positive has its lowest score.
      undefined_is_best: where the highest scores of a class are all of negatives, F1 is 0 / 0; take
        the lowest threshold of that kind for the best one (Parity: numpy's argmax returns the first
        nan), which is far too high. Otherwise F1 is 0 there.

    Raises:
      ValueError: as `average_precision`, or for infinite scores.
    """
    table = checked(scores, labels, ignored, partial=partial)
    found = []
    for block, block_labels, counted in table.class_blocks():
        if infinite := np.count_nonzero(np.isinf(block)):
            raise ValueError(f"scores: {infinite} of {block.size} are infinite")
        for c in range(block.shape[1]):
            kept = counted[:, c]
            found.append(
                _class_threshold(
                    block[kept, c], block_labels[kept, c] > 0, at_scores, undefined_is_best
                )
            )
    values, f1 = zip(*found, strict=True)
    return Thresholds(np.array(values), 100.0 * np.array(f1, np.float64))


def _class_threshold(
    scores: Shaped[np.ndarray, " n"],
    present: Bool[np.ndarray, " n"],
    at_scores: bool,
    undefined_is_best: bool,
) -> tuple[Shaped[np.ndarray, ""] | np.floating, float]:
    positives = np.count_nonzero(present)
    nan = scores.dtype.type(np.nan)
    if not scores.size or not (positives or at_scores):
        return nan, 0.0 if scores.size else np.nan
    order = np.argsort(-scores)
    ranked = scores[order]
    # The last place of each score: equal ones are predicted together.
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    hits = np.cumsum(present[order])[ends]
    f1 = 2 * hits / (ends + 1 + positives)
    wanted = f1
    if at_scores:
        # Parity: where F1 are equal, the rounding of this form decides.
        precision, recall = hits / (ends + 1), hits / max(positives, 1)
        wanted = 2 * precision * recall / np.where(hits == 0, 1, precision + recall)
    if undefined_is_best and positives:
        wanted = np.where(hits == 0, np.inf, wanted)
    best = f1.size - 1 - int(np.argmax(wanted[::-1]))
    lowest = ranked[ends[best]]
    if at_scores:
        return lowest, float(f1[best])
    if best + 1 == f1.size:
        return min(lowest - 1, np.nextafter(lowest, -np.inf)), float(f1[best])
    below = ranked[ends[best] + 1]
    middle = below / 2 + lowest / 2
    # Between neighboring numbers there is none.
    return middle if below <= middle < lowest else below, float(f1[best])
