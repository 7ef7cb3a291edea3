"""Readers of which the training split is partially annotated, by simulation.

Ben-Baruch et al., "Multi-label Classification with Partial Annotations using Class-aware Selective
Loss", https://arxiv.org/abs/2110.10955; Alibaba-MIIL/PartialLabelingCSL get_data.py: labels are
hidden after the images are chosen, in the training split alone.
"""

from collections.abc import Sequence
from pathlib import Path

from mljax.data.coco import coco
from mljax.data.digits import digits
from mljax.data.partial import simulate
from mljax.data.records import Records


def partial_coco(
    split: str,
    *,
    root: str | Path,
    year: int | None = None,
    keep_unannotated: bool = False,
    image_ids: Sequence[int] | str | Path | None = None,
    method: str = "fix_per_class",
    amount: float = 1000,
    seed: int = 0,
    legacy: bool = False,
    train_split: str = "train",
) -> Records:
    """Reads COCO and hides labels of its training split.

    Args:
      split: as for `coco`.
      root: as for `coco`.
      year: as for `coco`.
      keep_unannotated: as for `coco`: images without any object.
      image_ids: as for `coco`.
      method: `fix_per_class` or `random_per_sample`, see `mljax.data.partial`.
      amount: labels of either kind that a class keeps, or the share of labels that are hidden.
      seed: the same seed hides the same labels.
      legacy: draw from NumPy's legacy stream, as the original does.
      train_split: the split whose labels are hidden; all others are read as they are.

    Raises:
      ValueError: as `coco` and `simulate`.
    """
    records = coco(
        split, root=root, year=year, keep_unannotated=keep_unannotated, image_ids=image_ids
    )
    if split != train_split:
        return records
    return simulate(records, method, amount, seed=seed, legacy=legacy)


def partial_digits(
    split: str,
    *,
    num_images: int | None = None,
    canvas_size: int = 32,
    digits_seed: int = 0,
    method: str = "random_per_sample",
    amount: float = 0.7,
    seed: int = 0,
    train_split: str = "train",
) -> Records:
    """Composes canvases of digits and hides labels of the training split.

    Args:
      split: as for `digits`.
      num_images: as for `digits`.
      canvas_size: as for `digits`.
      digits_seed: the `seed` of `digits`.
      method: `fix_per_class` or `random_per_sample`, see `mljax.data.partial`.
      amount: labels of either kind that a class keeps, or the share of labels that are hidden.
      seed: the same seed hides the same labels.
      train_split: the split whose labels are hidden; all others are composed as they are.

    Raises:
      ValueError: as `digits` and `simulate`.
    """
    records = digits(split, num_images=num_images, canvas_size=canvas_size, seed=digits_seed)
    if split != train_split:
        return records
    return simulate(records, method, amount, seed=seed)
