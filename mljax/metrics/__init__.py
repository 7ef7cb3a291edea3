"""Metrics of multi-label classification, as the published systems compute them.

Scores and labels are numpy or jax arrays `[n, k]` of n images and k classes: any numbers that rank
the images of a class (probabilities where a threshold is involved), and 1 present, 0 absent, -1
unannotated. An `ignored` mask `[n, k]` leaves single entries out (VOC's *difficult*).

Alibaba-MIIL/ASL validate.py and helper_functions.py (https://arxiv.org/abs/2009.14119) are the
default. Arguments choose what mahdihosseini/KMCL meters.py and the field's standard do otherwise.

Arrays larger than memory may be memory maps. No metric holds more of them at once than a block of
`mljax.metrics.blocks.BLOCK_BYTES`: whole classes for what ranks images, whole images for what
counts. The figures are the same to the last bit whatever the size of the blocks.
"""

from mljax.metrics.blocks import LabelCounts, count_labels
from mljax.metrics.decisions import PrecisionRecallF1, precision_recall_f1
from mljax.metrics.ranking import (
    average_precision,
    mean_average_precision,
    partial_average_precision,
    partial_mean_average_precision,
)
from mljax.metrics.thresholds import Thresholds, best_f1_thresholds

__all__ = [
    "LabelCounts",
    "PrecisionRecallF1",
    "Thresholds",
    "average_precision",
    "best_f1_thresholds",
    "count_labels",
    "mean_average_precision",
    "partial_average_precision",
    "partial_mean_average_precision",
    "precision_recall_f1",
]
