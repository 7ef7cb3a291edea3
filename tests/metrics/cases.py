"""Scores and labels: the published cases, and random ones."""

import numpy as np

from tests import golden

ASL = [name for name in golden.names("asl_metrics") if name != "partial"]
KMCL = golden.names("kmcl_meters")


def random_table(seed, n=30, k=4):
    """Returns scores without ties, and labels with both kinds in every class."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n * k).reshape(n, k) / (n * k)
    labels = rng.integers(0, 2, (n, k))
    labels[0], labels[1] = 0, 1
    return scores, labels


def read_kmcl(case):
    """Returns the case's scores, labels, difficult mask (where the meter skips it) and arrays."""
    extra, arrays = golden.cases("kmcl_meters")[case]["extra"], golden.arrays("kmcl_meters", case)
    scores = arrays.get("scores")
    if scores is None:
        scores = golden.fill_input(*extra["scores"]["fill_input"])
    targets = arrays["targets"]
    ignored = targets == 0 if extra["difficult_example"] else None
    return scores, (targets > 0).astype(int), ignored, arrays
