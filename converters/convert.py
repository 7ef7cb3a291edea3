"""Converts a torch checkpoint: `python -m converters.convert SOURCE OUTPUT [--verify]`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as ScreenTable

from converters.detect import Detection, detect
from converters.models import build_model, choose_class_names, choose_preprocessing
from converters.read_torch import TorchFile, read_torch
from converters.safe_load import read_file
from converters.table import ImportReport
from converters.verify import verify
from mljax.checkpoints.checkpoint import save_model
from mljax.models.classifier import Classifier


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    try:
        _run(arguments, Console())
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m converters.convert",
        description="Writes a torch checkpoint as an mljax checkpoint folder.",
    )
    parser.add_argument("source", help="a .pth, .pth.tar, .ckpt or .safetensors file")
    parser.add_argument("output", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--key", help="the entry that holds the weights, as state_dict_ema")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="one name per line")
    text = "OpenImages' oidv6-class-descriptions.csv: MIDs (/m/...) become display names"
    parser.add_argument("--class-descriptions", type=Path, metavar="FILE", help=text)
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the input in pixels")
    for name, what in (("mean", "subtracted from RGB in [0, 1]"), ("std", "divides RGB then")):
        parser.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=what)
    for name, default in (("stem", "1e-2"), ("block", "1e-3")):
        text = f"of TResNet's leaky rectifiers ({default}; 1e-6 for the Stanford-Cars L_V2)"
        parser.add_argument(f"--{name}-slope", type=float, metavar="X", help=text)
    text = "word vectors of a zero-shot ML-Decoder head, as .npy or the release's .pth"
    parser.add_argument("--word-vectors", type=Path, metavar="FILE", help=text)
    parser.add_argument("--verify", action="store_true", help="compare with torch before writing")
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace, console: Console) -> None:
    if arguments.output.exists():
        raise ValueError(f"{arguments.output}: exists already; name a new folder or remove it")
    names = None
    if arguments.class_names is not None:
        lines = arguments.class_names.read_text(encoding="utf-8").splitlines()
        names = [line.strip() for line in lines if line.strip()]
    file = read_torch(arguments.source, key=arguments.key)
    detection = detect(file.tensors, file.name)
    slopes = {"stem_slope": arguments.stem_slope, "block_slope": arguments.block_slope}
    words = None if arguments.word_vectors is None else _read_array(arguments.word_vectors)
    model, report = build_model(file, detection, slopes, words)
    model.class_names = choose_class_names(
        file, model.spec.num_classes, names, arguments.class_descriptions
    )
    mean, std = (tuple(x) if x else None for x in (arguments.mean, arguments.std))
    model.preprocessing = choose_preprocessing(file, detection, arguments.image_size, mean, std)
    facts = _describe(file, detection, model, report)
    if arguments.verify:
        facts["verified"] = _verify(model, file, arguments.source)
    save_model(arguments.output, model, card=_card(facts))
    facts["written to"] = str(arguments.output)
    screen = ScreenTable(show_header=False, box=None)
    for name, text in facts.items():
        screen.add_row(f"[bold]{name}[/bold]", escape(text))
    console.print(screen)


def _read_array(path: Path) -> np.ndarray:
    """Returns the one array of a numpy or torch file.

    Raises:
      ValueError: if the file holds something else.
      FileNotFoundError: if there is no such file.
    """
    if path.suffix == ".npy":
        try:
            content = np.load(path)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read as an array: {error}") from error
    else:
        _, content = read_file(path)
    if hasattr(content, "detach"):
        content = content.detach().float().numpy()
    if not isinstance(content, np.ndarray):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected one array")
    return content


def _describe(
    file: TorchFile, detection: Detection, model: Classifier, report: ImportReport
) -> dict[str, str]:
    """Returns {what: text} of everything that a reader of the report or the card asks."""
    reasons: dict[str, list[str]] = {}
    for name, reason in report.unused.items():
        reasons.setdefault(reason, []).append(name)
    ignored = [f"{len(v)} ({why}), such as {v[0]}" for why, v in reasons.items()]
    names = model.class_names
    shown = "none; give them by --class-names FILE" if names is None else _shorten(names)
    preprocessing = model.preprocessing
    assert preprocessing is not None
    size = preprocessing.image_size
    return {
        "source": file.name,
        "container": file.container,
        "network": detection.description,
        "tensors mapped": f"{report.mapped} of {len(file.tensors)}",
        "ignored": "; ".join(ignored) or "none",
        "parameters": f"{report.parameters:,}",
        "class names": shown,
        "input": (
            f"{size} x {size} px ({preprocessing.resize}), mean {preprocessing.mean}, "
            f"std {preprocessing.std}"
        ),
        "assumed": detection.assumption or "nothing",
    }


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")


def _verify(model: Classifier, file: TorchFile, source: str) -> str:
    """Returns how the comparison with torch went.

    Raises:
      ValueError: if the two sides differ by more than the tolerance.
    """
    assert model.preprocessing is not None
    result = verify(model, file.tensors, image_size=model.preprocessing.image_size)
    if result is None:
        return "no: there is no torch twin of this network here"
    text = (
        f"largest difference of a logit from torch {result.difference:.1e}, logits up to "
        f"{result.largest:.3g}, on 2 random images of {result.image_size} px"
    )
    if not result.passed:
        raise ValueError(
            f"{source}: the converted network differs from torch: {text}; nothing was written. "
            "Please report it with the file's origin"
        )
    return text


def _card(facts: Mapping[str, str]) -> str:
    """Returns the model card."""
    lines = [f"- {name}: {text}" for name, text in facts.items()]
    use = "Use: `mljax.load_model(folder)`, or `python -m mljax.predict --checkpoint folder IMAGE`."
    title = f"# {facts['network']}"
    return "\n".join([title, "", "Converted from a torch checkpoint.", "", *lines, "", use, ""])


if __name__ == "__main__":
    sys.exit(main())
