"""Counts what a network costs: `python -m mljax.cost --config NAME --num-classes K`.

Parameters, multiply-adds and activation memory of one image in eval mode; `mljax.models.cost` has
the counting rules. Works for every config and checkpoint: no weights are allocated or read. The
number of classes is that of the config's data, unless `--num-classes` is given: then no data are
read. Exit codes: 0 done, 1 an error, whose message says what to do.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flax import nnx
from rich.console import Console
from rich.table import Table

from mljax.checkpoints.checkpoint import find_model, read_description
from mljax.config.load import load_config, override
from mljax.config.part import resolved, use_plugins
from mljax.config.schema import Config, Preprocessing
from mljax.data.records import Classes
from mljax.models.classifier import ModelSpec, abstract_model, for_classes
from mljax.models.cost import Cost, count_cost
from mljax.terminal.command import add_plugin_option, add_set_option, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if anything failed, 130 by Ctrl-C, else 0."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    use_plugins(arguments.plugin)
    if arguments.checkpoint is not None:
        if arguments.set or arguments.num_classes is not None:
            raise ValueError("--set and --num-classes change a config, not a checkpoint")
        description = read_description(find_model(arguments.checkpoint))
        spec, preprocessing, classes = description.spec, description.preprocessing, None
    else:
        config = override(load_config(arguments.config), arguments.set)
        preprocessing = config.data.preprocessing
        num_classes, classes = arguments.num_classes, None
        if num_classes is None:
            classes = _classes(config)
            num_classes = len(classes.names)
        spec = ModelSpec(
            backbone=config.model.backbone,
            head=config.model.head,
            num_classes=num_classes,
            dtype=None if config.model.dtype == "float32" else config.model.dtype,
        )
    height, width = _size(preprocessing, arguments.image_size)
    model = abstract_model(spec)
    if classes is not None:
        model = nnx.eval_shape(lambda model: for_classes(model, classes), model)
    cost = count_cost(model, height, width)
    if arguments.json:
        print(json.dumps({"height": height, "width": width, **asdict(cost)}))
        return
    table = Table(show_header=False, box=None)
    for name, value in _rows(spec, height, width, cost).items():
        table.add_row(f"[bold]{name}", value)
    Console().print(table)


def _classes(config: Config) -> Classes:
    """Returns the classes of the training split.

    Raises:
      ValueError: if the data cannot be read, saying what reads none.
    """
    reader: Any = resolved(config.data.reader, "reader")
    try:
        return reader(config.data.train_split).classes
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; --num-classes K counts without data") from error


def _size(preprocessing: Preprocessing | None, given: int | None) -> tuple[int, int]:
    if given is not None:
        if given < 1:
            raise ValueError(f"--image-size: expected at least 1 pixel, got {given}")
        return given, given
    if preprocessing is None:
        raise ValueError("the checkpoint does not tell the size of its images: give --image-size")
    return preprocessing.height_width


def _rows(spec: ModelSpec, height: int, width: int, cost: Cost) -> dict[str, str]:
    precision = spec.dtype or "float32"
    return {
        "network": f"{spec.backbone.name} + {spec.head.name}, {spec.num_classes} classes",
        "input": f"one image of {height} x {width}, {precision}",
        "parameters": f"{cost.parameters:,}",
        "multiply-adds": f"{cost.multiply_adds / 1e9:.2f} G, in convolutions and matrix products",
        "activations": f"{cost.activations / 1e6:.1f} M values, "
        f"{cost.activation_bytes / 2**20:.0f} MiB, that these make",
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.cost",
        description="Counts parameters, multiply-adds and activation memory of one image. A "
        "multiply-add is one product in a convolution or matrix product; papers often call a "
        "billion of them a GFLOP.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    add = source.add_argument
    add("--config", metavar="NAME[:ARGUMENT=VALUE,...]", help="a file, or a config that ships")
    add("--checkpoint", help="a checkpoint folder, or a run's workdir")
    add_set_option(parser)
    add = parser.add_argument
    add("--num-classes", type=int, metavar="K", help="in place of the data's, which stay unread")
    add("--image-size", type=int, metavar="N", help="side in pixels, in place of the config's")
    add("--json", action="store_true", help="one line of JSON, values and bytes whole")
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
