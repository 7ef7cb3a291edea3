"""Several sets of weights of one network, evaluated side by side: each image is decoded once."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mljax.data.records import Classes
from mljax.evaluation.evaluate import Apply, Batch, merge_figures, run_evaluators
from mljax.metrics.figures import find_figure
from mljax.terminal.grammar import counted


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the evaluators say of one set of weights.

    Attributes:
      figures: of all evaluators.
      evaluators: which can show what they found.
      bad_images: how many were skipped.
    """

    figures: dict[str, Any]
    evaluators: Sequence[Any]
    bad_images: int


def evaluate_weights(
    networks: Mapping[str, Apply],
    evaluators: Sequence[Callable[[], Any]],
    batches: Iterable[Batch],
    classes: Classes,
) -> dict[str, Found]:
    """Returns what the evaluators say of each network.

    Args:
      networks: name of the weights to a function of images to outputs of the head.
      evaluators: each makes a fresh one.
      batches: of the evaluated split.
      classes: of the split, with their threshold.
    """
    made = {name: [make() for make in evaluators] for name in networks}
    bad = run_evaluators(networks, made, batches)
    return {
        name: Found(
            figures=merge_figures(evaluator.result(classes) for evaluator in those),
            evaluators=those,
            bad_images=len(bad),
        )
        for name, those in made.items()
    }


def better_weights(found: Mapping[str, Found], best_by: str) -> tuple[str, float | None]:
    """Returns the name of the better weights and their figure; what is undefined is worst."""
    figures = {name: find_figure(each.figures, best_by) for name, each in found.items()}

    def rank(name: str) -> float:
        figure = figures[name]
        return -math.inf if figure is None else figure

    better = max(figures, key=rank)
    return better, figures[better]


def scalars(found: Mapping[str, Found]) -> dict[str, float]:
    """Returns the figures that are numbers for a log, as `eval/mAP_plain`; nan if undefined."""
    return {
        f"eval/{figure}_{name}": math.nan if value is None else value
        for name, each in found.items()
        for figure, value in each.figures.items()
        if value is None or type(value) is float
    }


def shown(found: Mapping[str, Found], best_by: str) -> str:
    """Returns one line for people: the figure of each set of weights."""
    values = {name: find_figure(each.figures, best_by) for name, each in found.items()}
    texts = ", ".join(f"{name} {show_figure(value)}" for name, value in values.items())
    first = next(iter(found.values()))
    partial = " over annotated labels" if first.figures.get("partial_labels") else ""
    bad = f", {counted(first.bad_images, 'bad image')} skipped" if first.bad_images else ""
    return f"{best_by}{partial} {texts}{bad}"


def show_figure(value: float | None) -> str:
    """Returns a figure with two decimals."""
    return "nan" if value is None else f"{value:.2f}"
