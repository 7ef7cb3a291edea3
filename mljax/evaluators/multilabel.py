"""The figures of multi-label classification: AP of each class, mAP, precision, recall and F1."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mljax.data.records import Classes
from mljax.evaluation.pictures import make_figure
from mljax.evaluation.scores import Rows, sigmoid
from mljax.evaluation.tables import extremes, max_rows
from mljax.metrics.blocks import LabelCounts, count_labels
from mljax.metrics.decisions import PrecisionRecallF1, precision_recall_f1
from mljax.metrics.ranking import average_precision, partial_average_precision
from mljax.terminal.grammar import counted

FIGURES = ("OP", "OR", "OF1", "CP", "CR", "CF1")
IMAGE_FIGURES = ("IP", "IR", "IF1")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a split and what the metrics say of them.

    Attributes:
      scores: probabilities or logits; like the labels and `ignored` perhaps a memory map.
      labels: 1 present, 0 absent, -1 unannotated.
      ignored: entries that no metric counts besides the unannotated ones, or None.
      counts: of the labels of each class that are not ignored.
      threshold: that of the figures below.
      top_k: limit of predictions per image in `top`.
      partial: whether there are unannotated labels. Then all figures are over annotated entries,
        and the AP of a class without annotations of both kinds is nan.
      average_precision: of each class, in [0, 1].
      mean_average_precision: in percent; nan if partial labels define it for no class.
      overall: at the threshold.
      top: at the threshold, among the highest `top_k` scores of each image.
    """

    scores: Float[np.ndarray, "n k"]
    labels: Shaped[np.ndarray, "n k"]
    ignored: Bool[np.ndarray, "n k"] | None
    counts: LabelCounts
    threshold: float | Float[np.ndarray, " k"]
    top_k: int
    partial: bool
    average_precision: Float[np.ndarray, " k"]
    mean_average_precision: float
    overall: PrecisionRecallF1
    top: PrecisionRecallF1


class Multilabel:
    """The figures of a split as an evaluator; `mAP` among them.

    Args:
      top_k: how many predictions an image may have in the second row of figures.
      interpolated: use the AP of PASCAL VOC since 2010 and of Query2Label, which is at least as
        high; see `mljax.metrics.average_precision`.

    Raises:
      ValueError: for a top_k below 1.
    """

    reads = ("logits",)

    def __init__(self, *, top_k: int = 3, interpolated: bool = False) -> None:
        if top_k < 1:
            raise ValueError(f"multilabel: top_k must be at least 1, got {top_k}")
        self._top_k, self._interpolated = top_k, interpolated
        self._rows: dict[str, Rows] = {}

    def update(self, outputs: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> None:
        """Takes note of some images: logits in four bytes each, labels and the mask in one."""
        rows = {
            "logits": np.asarray(outputs["logits"], np.float32),
            "labels": batch["labels"].astype(np.int8),
        }
        if "ignored" in batch:
            rows["ignored"] = batch["ignored"]
        for name, part in rows.items():
            self._rows.setdefault(name, Rows()).append(part)

    def result(self, classes: Classes) -> dict[str, Any]:
        """Returns all figures in percent, None where undefined.

        Raises:
          ValueError: as `evaluate_scores`.
        """
        arrays = {name: rows.array() for name, rows in self._rows.items()}
        self._classes = classes
        calibrated = classes.logit_threshold
        # Ranked as logits: in float32 the sigmoid is 1 for all above 17.
        found = evaluate_scores(
            arrays.pop("logits"),
            **arrays,
            link=sigmoid if calibrated is None else None,
            threshold=classes.threshold if calibrated is None else calibrated,
            top_k=self._top_k,
            interpolated=self._interpolated,
        )
        self.evaluation = dataclasses.replace(found, threshold=classes.threshold)
        return metrics_json(self.evaluation, classes.names)

    def show(self, console: Console) -> None:
        """Prints a table of the classes and one of the figures over all of them."""
        print_evaluation(self.evaluation, self._classes.names, console)

    def pictures(self, folder: Path) -> list[Path]:
        """Writes `average_precision.png`: the classes by their AP.

        Raises:
          ImportError: without matplotlib.
        """
        path = folder / "average_precision.png"
        draw_average_precision(self.evaluation, self._classes.names, path)
        return [path]


def draw_average_precision(evaluation: Evaluation, class_names: Sequence[str], path: Path) -> None:
    """Writes a bar chart of the AP of each class, the highest first; of many, the extremes.

    Args:
      evaluation: of `evaluate_scores`.
      class_names: the k names.
      path: the ending tells the format.

    Raises:
      ImportError: without matplotlib.
    """
    order = np.argsort(-evaluation.average_precision, kind="stable")
    kept = set(extremes(-evaluation.average_precision))
    shown = [c for c in order.tolist() if c in kept]
    figure = make_figure((7.0, max(2.0, 0.2 * len(shown) + 1.0)))
    axes = figure.add_subplot()
    values = 100 * np.nan_to_num(evaluation.average_precision[shown])
    axes.barh(np.arange(len(shown)), values)
    axes.set_yticks(
        np.arange(len(shown)), [class_names[c] for c in shown], fontsize=8, parse_math=False
    )
    axes.set(xlim=(0, 100), ylim=(len(shown) - 0.5, -0.5), xlabel="average precision, percent")
    axes.axvline(evaluation.mean_average_precision, color="black", linestyle=":", label="mAP")
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=150)


def evaluate_scores(
    scores: Float[np.ndarray, "n k"],
    labels: Shaped[np.ndarray, "n k"],
    *,
    ignored: Bool[np.ndarray, "n k"] | None = None,
    link: Callable[[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]] | None = None,
    threshold: float | Float[np.ndarray, " k"] = 0.8,
    top_k: int = 3,
    interpolated: bool = False,
) -> Evaluation:
    """Returns the metrics of a split: Alibaba-MIIL/ASL's, or over annotated entries if partial.

    Args:
      scores: probabilities, or what `link` makes probabilities of; equal ones share their rank, so
        that the figures do not depend on the order of the images.
      labels: 1 present, 0 absent, -1 unannotated.
      ignored: entries to leave out.
      link: such as the sigmoid, for logits.
      threshold: a class is predicted where its score is above: one for all, or one for each.
      top_k: how many predictions an image may have in `Evaluation.top`.
      interpolated: as for `average_precision`.

    Raises:
      ValueError: for what is no array of scores and labels; see `mljax.metrics`.
    """
    counts = count_labels(labels, ignored=ignored)
    partial = bool(counts.unannotated.any())
    metric = partial_average_precision if partial else average_precision
    ap = metric(scores, labels, ignored=ignored, ties="equal", interpolated=interpolated)
    defined = ap[~np.isnan(ap)]
    figures = functools.partial(
        precision_recall_f1,
        scores,
        labels,
        ignored=ignored,
        partial=partial,
        link=link,
        threshold=threshold,
    )
    return Evaluation(
        scores=scores,
        labels=labels,
        ignored=ignored,
        counts=counts,
        threshold=threshold,
        top_k=top_k,
        partial=partial,
        average_precision=ap,
        mean_average_precision=100 * float(defined.mean()) if defined.size else float("nan"),
        overall=figures(),
        top=figures(top_k=top_k),
    )


def metrics_json(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns all figures as what `json` writes: percent, None where undefined."""
    overall = evaluation.overall
    classes = [
        {
            "name": name,
            "AP": _number(100 * evaluation.average_precision[c]),
            "precision": _number(overall.precision[c]),
            "recall": _number(overall.recall[c]),
            "F1": _number(overall.f1[c]),
            "positives": int(evaluation.counts.present[c]),
        }
        for c, name in enumerate(class_names)
    ]
    return {
        "images": len(evaluation.scores),
        "mAP": _number(evaluation.mean_average_precision),
        "partial_labels": evaluation.partial,
        "decision": {
            "threshold": np.asarray(evaluation.threshold).tolist(),
            "top_k": evaluation.top_k,
        },
        "overall": {name: getattr(overall, name) for name in (*FIGURES, *IMAGE_FIGURES)},
        "top": {name: getattr(evaluation.top, name) for name in (*FIGURES, *IMAGE_FIGURES)},
        "classes": classes,
    }


def print_evaluation(evaluation: Evaluation, class_names: Sequence[str], console: Console) -> None:
    """Prints a table of the classes, then the figures over all of them, in percent."""
    limit = max_rows(console)
    console.print(_class_table(evaluation, class_names, limit))
    if (hidden := len(class_names) - limit) > 0:
        console.print(
            f"not shown: {counted(hidden, 'class')} between the highest and the lowest AP; the "
            "metrics.json of mljax.evaluate has all",
            highlight=False,
        )
    table = Table(box=None)
    table.add_column("percent")
    for name in FIGURES:
        table.add_column(name, justify="right")
    one = np.ndim(evaluation.threshold) == 0
    at = f"score > {evaluation.threshold:g}" if one else "score > each class's threshold"
    rows = {at: evaluation.overall, f"{at}, top {evaluation.top_k}": evaluation.top}
    for name, figures in rows.items():
        table.add_row(name, *_figures(figures))
    console.print(table)
    if evaluation.partial:
        present, absent, unannotated = (int(count.sum()) for count in evaluation.counts)
        annotated = (present + absent) / (present + absent + unannotated)
        undefined = np.count_nonzero(np.isnan(evaluation.average_precision))
        console.print(
            f"Partial labels: {100 * annotated:.1f}% of the entries are annotated, and only they "
            f"count; AP is undefined for {counted(int(undefined), 'class')}, which mAP leaves "
            "out."
        )
    elif empty := np.count_nonzero(evaluation.counts.present == 0):
        have = "has no positive: its" if empty == 1 else "have no positive: their"
        console.print(f"{counted(int(empty), 'class')} {have} AP of 0 counts in mAP")
    score = _percent(evaluation.mean_average_precision)
    images = counted(len(evaluation.scores), "image")
    console.print(f"[bold]mAP {score}[/bold] on {images}")


def _class_table(evaluation: Evaluation, class_names: Sequence[str], limit: int) -> Table:
    table = Table(box=None)
    table.add_column("class")
    for name in ("positives", "AP", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    positives, figures = evaluation.counts.present, evaluation.overall
    # nan, an undefined AP, is last.
    shown = extremes(-evaluation.average_precision, limit)
    for c in shown:
        columns = (
            100 * evaluation.average_precision,
            figures.precision,
            figures.recall,
            figures.f1,
        )
        percents = [_percent(float(column[c])) for column in columns]
        table.add_row(escape(class_names[c]), str(positives[c]), *percents)
    return table


def _figures(figures: PrecisionRecallF1) -> list[str]:
    return [_percent(getattr(figures, name)) for name in FIGURES]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
