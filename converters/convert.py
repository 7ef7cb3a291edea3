"""Converts a torch checkpoint: `python -m converters.convert SOURCE OUTPUT [--verify]`."""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as ScreenTable

from converters.files.read_torch import TorchFile
from converters.models import Conversion, convert_checkpoint
from converters.systems import SYSTEMS
from converters.verify import Verification, verify
from mljax.checkpoints.checkpoint import save_model
from mljax.config.load import parse_value
from mljax.config.part import use_plugins
from mljax.models.classifier import Classifier
from mljax.terminal.command import add_plugin_option, run_command

# The exit code where everything was done but the comparison that was asked for.
NOT_VERIFIED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments, Console()))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m converters.convert",
        description="Writes a torch checkpoint as an mljax checkpoint folder.",
        epilog=_describe_systems(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="a .pth, .pth.tar, .ckpt or .safetensors file")
    parser.add_argument("output", type=Path, help="the folder to write; it must not exist")
    text = "the entry that holds the weights, as state_dict_ema or ema.module"
    parser.add_argument("--key", help=text)
    text = "what precedes the names of the network in it, as student.; found unless given"
    parser.add_argument("--prefix", help=text)
    text = "one name per line, in UTF-8"
    parser.add_argument("--class-names", type=Path, metavar="FILE", help=text)
    text = "OpenImages' oidv6-class-descriptions.csv: MIDs (/m/...) become display names"
    parser.add_argument("--class-descriptions", type=Path, metavar="FILE", help=text)
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the input in pixels")
    for name, what in (("mean", "subtracted from RGB in [0, 1]"), ("std", "divides RGB then")):
        parser.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=what)
    text = "what only the system's own files need, as listed below; may be given several times"
    parser.add_argument(
        "--argument", action="append", default=[], metavar="NAME=VALUE", dest="own", help=text
    )
    text = (
        "compare with torch before writing: exit code 0 if both agree; 1 if they differ, and "
        "nothing is written; 3 if the checkpoint was written but not verified, since there is no "
        "torch reference of its network here"
    )
    parser.add_argument("--verify", action="store_true", help=text)
    add_plugin_option(parser)
    return parser.parse_args(argv)


def _describe_systems() -> str:
    """Returns what is known about each system, for the end of the help."""
    lines = ["systems, told from the file, and their arguments:"]
    for system in SYSTEMS.values():
        lines.append(f"  {system.name}: {system.networks}")
        for name, text in system.arguments.items():
            indent = " " * 6
            lines += textwrap.wrap(
                f"{name}: {text}", 92, initial_indent=indent, subsequent_indent=f"{indent}  "
            )
    return "\n".join(lines)


def _own_arguments(assignments: Sequence[str]) -> dict[str, Any]:
    """Returns {name: value}; values are Python literals, and what is none is taken as text.

    Raises:
      ValueError: for an assignment without a name, or a name that is given twice.
    """
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise ValueError(f"--argument: expected NAME=VALUE, got {assignment!r}")
        if name in found:
            raise ValueError(f"--argument: {name} is given twice")
        found[name] = parse_value(text)
    return found


def _run(arguments: argparse.Namespace, console: Console) -> int:
    use_plugins(arguments.plugin)
    if arguments.output.exists():
        raise ValueError(f"{arguments.output}: exists already; name a new folder or remove it")
    mean, std = (tuple(x) if x else None for x in (arguments.mean, arguments.std))
    conversion = convert_checkpoint(
        arguments.source,
        _own_arguments(arguments.own),
        key=arguments.key,
        prefix=arguments.prefix,
        class_names=arguments.class_names,
        class_descriptions=arguments.class_descriptions,
        image_size=arguments.image_size,
        mean=mean,
        std=std,
    )
    facts = _describe(conversion)
    code = 0
    if arguments.verify:
        result = _verify(conversion.model, conversion.file, arguments.source)
        code = 0 if result else NOT_VERIFIED
        facts["verified"] = (
            _describe_result(result)
            if result
            else "not verified: there is no torch reference of this network here"
        )
    save_model(arguments.output, conversion.model, card=_card(facts))
    facts["written to"] = str(arguments.output)
    screen = ScreenTable(show_header=False, box=None)
    for name, text in facts.items():
        screen.add_row(f"[bold]{name}[/bold]", escape(text))
    console.print(screen)
    return code


def _describe(conversion: Conversion) -> dict[str, str]:
    """Returns {what: text} of everything that a reader of the report or the card asks."""
    file, detection, report = conversion.file, conversion.detection, conversion.report
    reasons: dict[str, list[str]] = {}
    for name, reason in {**report.unused, **file.left_out}.items():
        reasons.setdefault(reason, []).append(name)
    ignored = [f"{len(v)} ({why}), such as {', '.join(v[:3])}" for why, v in reasons.items()]
    names = conversion.model.class_names
    shown = "none; give them by --class-names FILE" if names is None else _shorten(names)
    if not detection.num_classes:
        shown = "none, since there is no classifier"
    preprocessing = conversion.model.preprocessing
    assert preprocessing is not None
    size = preprocessing.image_size
    return {
        "source": file.name,
        "container": file.container,
        "not taken": ", ".join(file.alternatives) or "no other weights",
        "network": detection.description,
        "tensors mapped": f"{report.mapped} of {len(file.tensors) + len(file.left_out)}",
        "ignored": "; ".join(ignored) or "none",
        "parameters": f"{report.parameters:,}",
        "class names": shown,
        "input": (f"{size} x {size} px, mean {preprocessing.mean}, std {preprocessing.std}"),
        "resize": (
            f"height and width to the side, {preprocessing.resize}; the published scores of "
            f"{conversion.system.name} were measured with: {conversion.system.validation}"
        ),
        "assumed": detection.assumption or "nothing",
    }


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")


def _verify(model: Classifier, file: TorchFile, source: str) -> Verification | None:
    """Returns how the comparison with torch went, or None where there is nothing to compare with.

    Raises:
      ValueError: if the two sides differ by more than the tolerance.
    """
    assert model.preprocessing is not None
    result = verify(model, file.tensors, image_size=max(model.preprocessing.height_width))
    if result is not None and not result.passed:
        raise ValueError(
            f"{source}: the converted network differs from torch: {_describe_result(result)}; "
            "nothing was written. Please report it with the file's origin"
        )
    return result


def _describe_result(result: Verification) -> str:
    text = (
        f"largest difference of a {result.output} from torch {result.difference:.1e}, "
        f"{result.output}s up to {result.largest:.3g}, on 2 random images of {result.image_size} px"
    )
    if result.float32_difference is None:
        return text
    return (
        f"{text}, both in float64; in float32, which rounds more, {result.float32_difference:.1e}"
    )


def _card(facts: Mapping[str, str]) -> str:
    """Returns the model card."""
    lines = [f"- {name}: {text}" for name, text in facts.items()]
    use = "Use: `mljax.load_model(folder)`, or `python -m mljax.predict --checkpoint folder IMAGE`."
    if "init_from" in facts["network"]:
        use = "Use: `--set model.init_from=folder` starts a training from it."
    title = f"# {facts['network']}"
    return "\n".join([title, "", "Converted from a torch checkpoint.", "", *lines, "", use, ""])


if __name__ == "__main__":
    sys.exit(main())
