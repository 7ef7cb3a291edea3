"""Partial annotation, simulated: hides labels of a fully annotated data set.

In a config, the reader `partial` wraps another one and hides labels of the training split alone.

Ben-Baruch et al., "Multi-label Classification with Partial Annotations using Class-aware Selective
Loss", section on simulated COCO, https://arxiv.org/abs/2110.10955;
Alibaba-MIIL/PartialLabelingCSL coco_simulation.py. The original draws from NumPy's global legacy
stream and sets no seed; given `np.random.RandomState(seed)`, the functions here draw as it does
after `np.random.seed(seed)`.
"""

import dataclasses

import numpy as np
from jaxtyping import Int8

from mljax.config.part import Part, resolved
from mljax.data.records import Records

Rng = np.random.Generator | np.random.RandomState


def fix_per_class(
    labels: Int8[np.ndarray, "n k"], amount: int | float, rng: Rng
) -> Int8[np.ndarray, "n k"]:
    """Returns labels of which every class keeps so many present and so many absent ones.

    Args:
      labels: 1 present, 0 absent, -1 unannotated; not changed.
      amount: labels that each class keeps of either kind, rounded down; all, if there are fewer.
      rng: which ones are kept, in the order class by class, present before absent.

    Raises:
      ValueError: for an amount below 0.
    """
    if amount < 0:
        raise ValueError(f"fix_per_class: amount must be at least 0, got {amount}")
    kept = np.full_like(labels, -1)
    for k, column in enumerate(labels.T):
        for value in (1, 0):
            rows = np.flatnonzero(column == value)
            chosen = rng.choice(rows, min(int(amount), len(rows)), replace=False)
            kept[chosen, k] = value
    return kept


def random_per_sample(
    labels: Int8[np.ndarray, "n k"], amount: int | float, rng: Rng
) -> Int8[np.ndarray, "n k"]:
    """Returns labels of which each is hidden with the same probability.

    Args:
      labels: 1 present, 0 absent, -1 unannotated; not changed.
      amount: the probability, in [0, 1].
      rng: one draw for each label, row by row.

    Raises:
      ValueError: for an amount outside [0, 1].
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"random_per_sample: amount is a probability in [0, 1], got {amount}")
    hidden = rng.random(labels.shape) < amount
    return np.where(hidden, np.int8(-1), labels)


METHODS = {"fix_per_class": fix_per_class, "random_per_sample": random_per_sample}


def simulate(
    records: Records, method: str, amount: int | float, *, seed: int = 0, legacy: bool = False
) -> Records:
    """Returns the records with some of their labels hidden; meant for the training split alone.

    All labels are held in memory, one byte each.

    Args:
      records: not changed.
      method: a name in `METHODS`.
      amount: labels of either kind per class for `fix_per_class`, the hidden share for
        `random_per_sample`.
      seed: the same seed hides the same labels.
      legacy: draw from NumPy's legacy stream, as the original does.

    Raises:
      ValueError: for an unknown method or an amount that it does not take.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    rng = np.random.RandomState(seed) if legacy else np.random.default_rng(seed)
    labels = np.stack([np.asarray(row, np.int8) for row in records.labels])
    return dataclasses.replace(records, labels=METHODS[method](labels, amount, rng))


def partial(
    split: str,
    *,
    reader: Part,
    method: str,
    amount: int | float,
    seed: int = 0,
    legacy: bool = False,
    hidden_split: str = "train",
) -> Records:
    """Reads a split with another reader; hides labels if it is the training split.

    Args:
      split: of the other reader.
      reader: the other reader, as `part(coco, root="data/coco")`.
      method: see `simulate`, as for the next three.
      amount: how many labels, or what share.
      seed: of the choice.
      legacy: draw as the original does.
      hidden_split: the only split whose labels are hidden.

    Raises:
      ValueError: for an unknown reader or method, or arguments that they do not take.
    """
    records = resolved(reader, "reader")(split)
    if split != hidden_split:
        return records
    return simulate(records, method, amount, seed=seed, legacy=legacy)
