"""The figures of an evaluation, and how they are shown."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mljax.metrics.blocks import LabelCounts, count_labels
from mljax.metrics.decisions import PrecisionRecallF1, precision_recall_f1
from mljax.metrics.ranking import average_precision, partial_average_precision

FIGURES = ("OP", "OR", "OF1", "CP", "CR", "CF1")

# Beyond this, a table shows only the classes with the highest and the lowest AP.
MAX_CLASSES = 100


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a split and what the metrics say of them.

    Attributes:
      scores: in [0, 1]; like the labels and `ignored` perhaps a memory map.
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
    threshold: float
    top_k: int
    partial: bool
    average_precision: Float[np.ndarray, " k"]
    mean_average_precision: float
    overall: PrecisionRecallF1
    top: PrecisionRecallF1


def evaluate_scores(
    scores: Float[np.ndarray, "n k"],
    labels: Shaped[np.ndarray, "n k"],
    *,
    ignored: Bool[np.ndarray, "n k"] | None = None,
    threshold: float = 0.8,
    top_k: int = 3,
) -> Evaluation:
    """Returns the metrics of a split: Alibaba-MIIL/ASL's, or over annotated entries if partial.

    Args:
      scores: probabilities.
      labels: 1 present, 0 absent, -1 unannotated.
      ignored: entries to leave out.
      threshold: a class is predicted where its score is above.
      top_k: how many predictions an image may have in `Evaluation.top`.

    Raises:
      ValueError: for what is no array of scores and labels; see `mljax.metrics`.
    """
    counts = count_labels(labels, ignored=ignored)
    partial = bool(counts.unannotated.any())
    if partial:
        ap = partial_average_precision(scores, labels, ignored=ignored)
    else:
        ap = average_precision(scores, labels, ignored=ignored)
    defined = ap[~np.isnan(ap)]
    figures = functools.partial(
        precision_recall_f1, scores, labels, ignored=ignored, partial=partial, threshold=threshold
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
        "threshold": evaluation.threshold,
        "overall": {name: getattr(overall, name) for name in FIGURES},
        "top_k": evaluation.top_k,
        "top": {name: getattr(evaluation.top, name) for name in FIGURES},
        "classes": classes,
    }


def print_evaluation(evaluation: Evaluation, class_names: Sequence[str], console: Console) -> None:
    """Prints a table of the classes, then the figures over all of them, in percent."""
    console.print(_class_table(evaluation, class_names))
    hidden = len(class_names) - MAX_CLASSES
    if hidden > 0:
        console.print(f"{hidden} classes between the highest and the lowest AP are not shown")
    table = Table(box=None)
    table.add_column("percent")
    for name in FIGURES:
        table.add_column(name, justify="right")
    at = f"score > {evaluation.threshold:g}"
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
            f"count; AP is undefined for {undefined} classes, which mAP leaves out."
        )
    elif empty := np.count_nonzero(evaluation.counts.present == 0):
        console.print(f"{empty} classes have no positive: their AP of 0 counts in mAP")
    score = _percent(evaluation.mean_average_precision)
    console.print(f"[bold]mAP {score}[/bold] on {len(evaluation.scores)} images")


def _class_table(evaluation: Evaluation, class_names: Sequence[str]) -> Table:
    table = Table(box=None)
    table.add_column("class")
    for name in ("positives", "AP", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    positives, figures = evaluation.counts.present, evaluation.overall
    shown = range(len(class_names))
    if len(class_names) > MAX_CLASSES:
        # nan, an undefined AP, sorts last.
        order = np.argsort(-evaluation.average_precision, kind="stable").tolist()
        shown = order[: MAX_CLASSES // 2] + order[-MAX_CLASSES // 2 :]
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
