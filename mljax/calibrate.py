"""Chooses a threshold for each class: `python -m mljax.calibrate --checkpoint FOLDER`.

Each is the one with the highest F1 on the training split; see `best_f1_thresholds`. They are put
into the checkpoint, where evaluate and predict find them.

Prokofiev and Sovrasov, "Combining Metric Learning and Attention Heads",
https://arxiv.org/abs/2209.06585, section 4.4.

Differs from the reference (tosfaq/deep-object-reid), which takes the scores of its training loader,
so of augmented images, shuffled, without the last part of a batch; and in its script for evaluation
of a network in training mode, whose dropout is on and whose running statistics these images change.
Here they are those that evaluate and predict compute: the whole split, without augmentation, in
eval mode, in the network's own precision, with products of float32 in float32 on all devices.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mljax.data  # noqa: F401
from mljax.checkpoints.checkpoint import Thresholds, find_model, load_model, save_thresholds
from mljax.config.load import unread_fields
from mljax.config.part import resolved, use_plugins
from mljax.config.schema import DataConfig, EvalConfig
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluation.scores import sigmoid
from mljax.evaluation.stored_config import read_data_config
from mljax.evaluation.tables import extremes, max_rows
from mljax.evaluators.multilabel import Evaluation, Multilabel, evaluate_scores
from mljax.metrics.thresholds import best_f1_thresholds
from mljax.models.classifier import Classifier
from mljax.terminal.command import add_plugin_option, add_set_option, run_command
from mljax.terminal.grammar import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments, Console()))


def _run(arguments: argparse.Namespace, console: Console) -> None:
    use_plugins(arguments.plugin)
    checkpoint = find_model(arguments.checkpoint)
    model = load_model(checkpoint)
    data, decisions = read_data_config(checkpoint, model, arguments.config, arguments.set)
    for unread in unread_fields(arguments.set, ("data", "eval")):
        console.print(
            f"--set {unread} changes nothing here: calibrate does not read it",
            highlight=False,
            markup=False,
        )
    split = arguments.split or data.train_split
    before, names, skipped = _evaluate(model, data, decisions, split, arguments.match)
    values = _thresholds(before, decisions.threshold)
    after = evaluate_scores(before.scores, before.labels, ignored=before.ignored, threshold=values)
    source = f"{data.reader.name}, split {split}, {counted(len(before.scores), 'image')}"
    # Every process has the same thresholds; they share the folder.
    if jax.process_index() == 0:
        logits = tuple(map(float, values))
        save_thresholds(checkpoint, Thresholds(logits=logits, source=source))
    console.print(f"{checkpoint}: {source}", highlight=False, markup=False)
    _print(before, after, sigmoid(values), names, console)
    for name in skipped:
        console.print(f"skipped, cannot be read: {name}", highlight=False, markup=False)
    console.print(f"the thresholds are in {checkpoint}", highlight=False, markup=False)


def _evaluate(
    model: Classifier,
    data: DataConfig,
    decisions: EvalConfig,
    split: str,
    match: Literal["name", "position"],
) -> tuple[Evaluation, Sequence[str], list[str]]:
    """Returns the logits of a split with their figures, the class names, and what was skipped."""
    records = resolved(data.reader, "reader")(split)
    if records.class_vectors is not None and records.class_names != model.class_names:
        raise ValueError(
            f"split {split} has other classes than the network: a threshold of one class says "
            "nothing of another"
        )
    evaluator = Multilabel()
    _, skipped = evaluate_model(
        model,
        records,
        evaluators=[evaluator],
        preprocessing=data.preprocessing,
        threshold=decisions.threshold,
        batch_size=data.eval_batch_size,
        num_workers=data.num_workers,
        bad_images=data.bad_images,
        max_pixels=data.max_pixels,
        cache=data.cache,
        match=match,
        matmul_precision="highest",
    )
    return evaluator.evaluation, model.class_names or records.class_names, skipped


def _thresholds(found: Evaluation, threshold: float) -> Float[np.ndarray, " k"]:
    """Returns the threshold of each class before the sigmoid; that of the config without positives.

    As float32, which the logits are compared in.
    """
    best = best_f1_thresholds(
        found.scores, found.labels, ignored=found.ignored, partial=found.partial
    ).values
    # Of the scores 0 and 1 it is infinite, which JSON has no number for.
    with np.errstate(divide="ignore"):
        configured = np.nan_to_num(np.log(np.float32(threshold)) - np.log1p(-np.float32(threshold)))
    return np.where(np.isnan(best), configured, best).astype(np.float32)


def _print(
    before: Evaluation,
    after: Evaluation,
    scores: Float[np.ndarray, " k"],
    names: Sequence[str],
    console: Console,
) -> None:
    """Prints each class's threshold and its F1 before and after, then the means."""
    table = Table(box=None)
    table.add_column("class")
    at = f"F1 at {before.threshold:g}"
    for name in ("positives", "threshold", at, "F1 calibrated"):
        table.add_column(name, justify="right")
    gains = after.overall.f1 - before.overall.f1
    limit = max_rows(console)
    positives = before.counts.present
    for c in extremes(-gains, limit):
        value = f"{scores[c]:.4f}" if positives[c] else f"{scores[c]:.4f} (the config's)"
        percents = ["-" if math.isnan(f) else f"{f:.2f}" for f in _f1(before, after, c)]
        table.add_row(escape(names[c]), str(positives[c]), value, *percents)
    console.print(table)
    if (hidden := len(names) - limit) > 0:
        shown = f"not shown: {counted(hidden, 'class')} between the largest and the smallest gain"
        console.print(shown, highlight=False)
    for name in ("CF1", "OF1", "IF1"):
        old, new = getattr(before.overall, name), getattr(after.overall, name)
        console.print(f"{name} {old:.2f} at {before.threshold:g}, {new:.2f} calibrated")


def _f1(before: Evaluation, after: Evaluation, c: int) -> tuple[float, float]:
    return float(before.overall.f1[c]), float(after.overall.f1[c])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.calibrate",
        description="Chooses the threshold of each class with the highest F1, and stores it in the "
        "checkpoint.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run's workdir")
    add("--split", help="of the data set; default: the config's data.train_split")
    add("--config", metavar="FILE", help="a config to use in place of the checkpoint's")
    add_set_option(parser)
    text = "how classes of the network find those of the split: position insists where names differ"
    add("--match", choices=("name", "position"), default="name", help=text)
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
