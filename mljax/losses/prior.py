"""Class priors: how often each class is present, estimated from a model's predictions.

Where most labels are missing, the annotations say little about how frequent a class is. Ben-Baruch
et al., "Multi-label Classification with Partial Annotations using Class-aware Selective Loss",
https://arxiv.org/abs/2110.10955, train a temporary model on the annotated labels alone and take
its mean prediction over the training; Alibaba-MIIL/PartialLabelingCSL
partial_asymmetric_loss.py, `ComputePrior`.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_HEADER = ["Classes", "avg_pred"]


def update_prior(
    prior: Float[Array, " k"],
    count: Float[Array, ""],
    logits: Float[Array, "b k"],
    valid: Bool[Array, " b"] | None = None,
) -> tuple[Float[Array, " k"], Float[Array, ""]]:
    """Returns the mean of sigmoid(logits) over all images so far, and their number.

    Start with zeros and never reset: the prior is the mean over all training batches of all
    epochs, as predicted in training mode.

    Args:
      prior: the mean before these images, in [0, 1].
      count: how many images it is the mean of.
      logits: of one more batch, before the sigmoid.
      valid: images that count; None counts all.
    """
    scores = jax.nn.sigmoid(logits.astype(prior.dtype))
    weights = jnp.ones_like(scores[:, 0]) if valid is None else valid.astype(prior.dtype)
    total = count + weights.sum()
    moved = ((scores - prior[None, :]) * weights[:, None]).sum(0)
    return prior + moved / jnp.maximum(total, 1), total


def read_prior(
    path: str | Path, class_names: Sequence[str] | None = None
) -> Float[np.ndarray, " k"]:
    """Returns the second column of a prior file, in [0, 1].

    The file is CSV with the header `Classes,avg_pred` and a row for each class. A last line with
    its first field alone, which a published file has by accident, is left out.

    Args:
      path: of the file.
      class_names: the prior is returned in their order; None keeps that of the file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: for another header, a row without a number in [0, 1], a repeated class, or other
        classes than `class_names`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no such prior; a recipe with train.estimate_prior, such as "
            "configs/coco_partial_prior.py, writes one to its workdir"
        )
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows or rows[0] != _HEADER:
        raise ValueError(f"{path}: expected the header {','.join(_HEADER)}, got {rows[:1]}")
    rows = rows[1:]
    if rows and not any(rows[-1][1:]):
        rows = rows[:-1]
    values = {row[0]: _probability(row, number + 2, path) for number, row in enumerate(rows)}
    if len(values) != len(rows):
        raise ValueError(f"{path}: {len(rows)} rows name only {len(values)} different classes")
    if class_names is None:
        return np.array(list(values.values()), np.float32)
    missing = [name for name in class_names if name not in values]
    unknown = [name for name in values if name not in set(class_names)]
    if missing or unknown:
        raise ValueError(
            f"{path}: holds {len(values)} classes for {len(class_names)} class names; "
            f"{len(missing)} are missing, such as {missing[:3]}, and {len(unknown)} are unknown, "
            f"such as {unknown[:3]}: estimate the prior on the data set that it is used for"
        )
    return np.array([values[name] for name in class_names], np.float32)


def write_prior(
    path: str | Path, class_names: Sequence[str], values: Float[Array | np.ndarray, " k"]
) -> None:
    """Writes the file that `read_prior` reads; it appears complete or not at all.

    Raises:
      ValueError: for another number of values than of names, or a repeated name.
    """
    if len(values) != len(class_names):
        raise ValueError(f"prior: {len(values)} values for {len(class_names)} class names")
    if len(set(class_names)) != len(class_names):
        raise ValueError("prior: class_names repeat a name; make them unique")
    path = Path(path)
    temporary = path.with_name(path.name + ".incomplete")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        # str of a numpy float32 is the shortest text that reads back as the same value.
        pairs = zip(class_names, np.asarray(values, np.float32), strict=True)
        writer.writerows([name, str(value)] for name, value in pairs)
    temporary.replace(path)


def _probability(row: list[str], line: int, path: str | Path) -> float:
    try:
        value = float(row[1])
    except (IndexError, ValueError):
        value = np.nan
    if not 0 <= value <= 1:
        raise ValueError(
            f"{path}, line {line}: expected a class and a number in [0, 1], got {','.join(row)}"
        )
    return value
