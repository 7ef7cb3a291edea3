"""Class priors: how often each class is present, estimated from a model's predictions.

Where most labels are missing, the annotations say little about how frequent a class is. Ben-Baruch
et al., "Multi-label Classification with Partial Annotations using Class-aware Selective Loss",
https://arxiv.org/abs/2110.10955, train a temporary model on the annotated labels alone and take
its mean prediction over the training; Alibaba-MIIL/PartialLabelingCSL
partial_asymmetric_loss.py, `ComputePrior`.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mljax.data.files.label_table import read_rows
from mljax.data.files.names import class_name
from mljax.data.files.text import separator_note
from mljax.data.records import Classes
from mljax.data.statistics import present_shares

_HEADER = ["Classes", "avg_pred"]


class ClassPrior:
    """The mean prediction of each class over the whole training, as a tracker.

    It is written to `prior.csv` in the workdir, and at the end drawn beside the annotations in
    `prior.png`.
    """

    def init(self, model: Any) -> dict[str, Array]:  # noqa: ANN401
        """Returns the mean over no image, `[k]`, and the number of images."""
        return {"mean": jnp.zeros(model.spec.num_classes), "count": jnp.zeros(())}

    def update(
        self, arrays: Mapping[str, Array], outputs: Mapping[str, Array], batch: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Returns the mean with the images of one more batch.

        Raises:
          ValueError: for a head that gives no logits.
        """
        if "logits" not in outputs:
            raise ValueError(
                f"the tracker class_prior reads logits, the head gives {', '.join(sorted(outputs))}"
            )
        mean, count = update_prior(
            arrays["mean"], arrays["count"], outputs["logits"], batch["valid"]
        )
        return {"mean": mean, "count": count}

    def save(self, arrays: Mapping[str, np.ndarray], classes: Classes, workdir: Path) -> None:
        """Writes `prior.csv`."""
        write_prior(workdir / "prior.csv", classes.names, arrays["mean"])

    def pictures(self, arrays: Mapping[str, np.ndarray], classes: Classes, workdir: Path) -> str:
        """Writes `prior.png` if matplotlib is there; returns where the prior is."""
        where = f"class prior in {workdir / 'prior.csv'}"
        picture = workdir / "prior.png"
        try:
            draw_prior(picture, classes.names, arrays["mean"], present_shares(classes.labels))
        except ImportError:
            return f"{where}; for a picture: pip install 'mljax[plot]'"
        return f"{where}, drawn in {picture}"


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
            f"{path}: no such prior; a config with the tracker class_prior, such as "
            "csl/coco:mode=ignore, writes one to its workdir"
        )
    rows = [(line, row) for line, row in read_rows(Path(path)) if row]
    header = rows[0][1] if rows else []
    if header != _HEADER:
        raise ValueError(
            f"{path}, line 1: expected the header {','.join(_HEADER)}, got "
            f"{','.join(header)!r:.80}{separator_note(','.join(header))}"
        )
    rows = rows[1:]
    if rows and not any(rows[-1][1][1:]):
        rows = rows[:-1]
    values = {class_name(row[0]): _probability(row, line, path) for line, row in rows}
    if len(values) != len(rows):
        raise ValueError(f"{path}: {len(rows)} rows name only {len(values)} different classes")
    if class_names is None:
        return np.array(list(values.values()), np.float32)
    missing = [name for name in class_names if name not in values]
    known = set(class_names)
    unknown = [name for name in values if name not in known]
    if missing or unknown:
        raise ValueError(
            f"{path}: holds {len(values)} classes for {len(class_names)} class names; "
            f"{len(missing)} are missing, such as {missing[:3]}, and {len(unknown)} are unknown, "
            f"such as {unknown[:3]}: estimate the prior on the data set that it is used for"
        )
    return np.array([values[name] for name in class_names], np.float32)


def prior_csv(class_names: Sequence[str], *, path: str) -> Float[np.ndarray, " k"]:
    """Returns the prior of a file in the order of the classes, for an argument of a loss.

    Args:
      class_names: of the training split.
      path: of the file; see `read_prior`, also for what is raised.
    """
    return read_prior(path, class_names)


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


def draw_prior(
    path: Path,
    class_names: Sequence[str],
    prior: Float[np.ndarray, " k"],
    shares: Float[np.ndarray, " k"],
) -> None:
    """Writes a picture of an estimated class prior against how often the classes are annotated.

    The classes stand side by side, the highest prior first, and are named if there are at most 100.
    The vertical axis is logarithmic; what is below a hundredth of the least prior is at its foot.

    Args:
      path: the ending tells the format.
      class_names: the k names.
      prior: in [0, 1].
      shares: of `mljax.data.statistics.present_shares`.

    Raises:
      ImportError: without matplotlib.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-prior, kind="stable")
    foot = max(float(prior[prior > 0].min(initial=1.0)) / 100, 1e-8)
    count = len(order)
    figure = Figure(figsize=(min(max(0.16 * count, 6.0), 16.0), 5), layout="constrained")
    axes = figure.add_subplot()
    for values, marker, label in (
        (shares, "x", "share of the training images annotated as present"),
        (prior, "o", "estimated prior"),
    ):
        heights = np.maximum(values[order].astype(float), foot)
        axes.plot(np.arange(count), heights, marker, markersize=4, label=label)
    axes.set(yscale="log", ylim=(foot, 1), xlim=(-1, count))
    if count <= 100:
        names = [str(class_names[c]) for c in order]
        axes.set_xticks(np.arange(count), names, rotation=90, fontsize=7, parse_math=False)
    else:
        axes.set_xlabel(f"{count} classes by estimated prior")
    axes.legend()
    figure.savefig(path, dpi=150)
