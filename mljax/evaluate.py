"""Evaluates a checkpoint: `python -m mljax.evaluate --checkpoint FOLDER [--split S]`.

Prints and writes the figures of the config's evaluators: mAP, the AP of each class, and precision,
recall and F1 at a threshold, unless it names others.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

import mljax.data  # noqa: F401
from mljax.checkpoints.checkpoint import find_model, load_model
from mljax.config.load import parse_arguments, unread_fields
from mljax.config.part import Part, resolved, use_plugins
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluation.pictures import make_figure
from mljax.evaluation.stored_config import read_data_config, threshold_of
from mljax.evaluators import EVALUATORS
from mljax.formats import RUNTIMES
from mljax.terminal.command import (
    add_data_option,
    add_plugin_option,
    add_precision_option,
    add_set_option,
    run_command,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments, Console()))


def _run(arguments: argparse.Namespace, console: Console) -> None:
    use_plugins(arguments.plugin)
    if arguments.pictures is not None:
        # Without matplotlib this fails here, not after the evaluation.
        make_figure((1.0, 1.0))
    checkpoint = find_model(arguments.checkpoint)
    model = load_model(checkpoint)
    changes = [*arguments.set, *(f"data.{assignment}" for assignment in arguments.data)]
    data, defaults = read_data_config(checkpoint, model, arguments.config, changes)
    for unread in unread_fields(arguments.set, ("data", "eval")):
        console.print(
            f"--set {unread} changes nothing here: evaluate does not read it",
            highlight=False,
            markup=False,
        )
    split = arguments.split or data.eval_split
    evaluators = _make_evaluators(defaults.evaluators, arguments.evaluator)
    records = resolved(data.reader, "reader")(split)
    figures, skipped = evaluate_model(
        model,
        records,
        evaluators=evaluators,
        preprocessing=data.preprocessing,
        threshold=threshold_of(model, defaults.threshold, arguments.threshold, changes),
        batch_size=data.eval_batch_size,
        num_workers=data.num_workers,
        bad_images=data.bad_images,
        max_pixels=data.max_pixels,
        cache=data.cache,
        match=arguments.match,
        make=RUNTIMES[arguments.runtime],
        matmul_precision=arguments.matmul_precision or defaults.matmul_precision,
    )
    console.print(f"{checkpoint}: {data.reader.name}, split {split}", highlight=False)
    # The first one's, the main result, last.
    for evaluator in reversed(evaluators):
        evaluator.show(console)
    for name in skipped:
        console.print(f"skipped, cannot be read: {name}", highlight=False, markup=False)
    source = {"checkpoint": str(checkpoint), "reader": data.reader.name, "split": split}
    output = arguments.output or _default_output(arguments.checkpoint, checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(source | figures | {"skipped": skipped}, indent=2)
    output.write_text(text + "\n", "utf-8")
    written = [output]
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        written += [p for evaluator in evaluators for p in evaluator.pictures(arguments.pictures)]
    for path in written:
        console.print(f"written to {path}", highlight=False, markup=False)


def _make_evaluators(configured: Sequence[Part], given: Sequence[str]) -> list[Any]:
    """Returns the config's evaluators with those of the command, `NAME[:argument=value,...]`."""
    parts = {chosen.name: chosen for chosen in configured}
    for text in given:
        name, colon, rest = _split_name(text)
        kwargs = parse_arguments(rest, f"--evaluator {text}") if colon else {}
        parts[name] = Part(name=name, kwargs=kwargs)
    return [resolved(chosen, "evaluator")() for chosen in parts.values()]


def _split_name(text: str) -> tuple[str, str, str]:
    """Returns the name of an evaluator, the colon after it if there is one, and what follows.

    The name of a plug-in's has a colon itself: `mine.evaluators:Calibration:bins=10`.
    """
    name, colon, rest = text.partition(":")
    qualname, second, arguments = rest.partition(":")
    if name not in EVALUATORS and qualname.replace(".", "").isidentifier():
        return f"{name}:{qualname}", second, arguments
    return name, colon, rest


def _default_output(given: Path, checkpoint: Path) -> Path:
    """Returns a file in the workdir, or beside the checkpoint, whose own files are sealed."""
    if given.absolute() != checkpoint:
        return given / "metrics.json"
    return checkpoint.with_name(f"{checkpoint.name}.metrics.json")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.evaluate",
        description="Evaluates a checkpoint on a split of a data set.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run's workdir")
    add("--split", help="of the data set; default: the config's data.eval_split")
    add("--config", metavar="FILE", help="a config to use in place of the checkpoint's")
    add_data_option(parser)
    add_set_option(parser)
    text = "predicted above; default: calibrated ones, else the config's eval.threshold"
    add("--threshold", type=float, help=text)
    text = "how classes of the network find those of the split: position insists where names differ"
    add("--match", choices=("name", "position"), default="name", help=text)
    add_precision_option(parser)
    add(
        "--evaluator",
        action="append",
        default=[],
        metavar="NAME[:ARGUMENT=VALUE,...]",
        help="another evaluator, or other arguments of one, as multilabel:top_k=5",
    )
    add("--runtime", choices=RUNTIMES, default="jax", help="what computes the network")
    add("--pictures", type=Path, metavar="FOLDER", help="where the evaluators draw their figures")
    add(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="default: metrics.json in the workdir, or NAME.metrics.json beside a checkpoint",
    )
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
