"""Converts a torch checkpoint: `python -m converters.convert SOURCE OUTPUT [--verify]`."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from rich.console import Console
from rich.markup import escape
from rich.table import Table as ScreenTable

from converters.detect import Detection, detect
from converters.read_torch import TorchFile, read_torch
from converters.table import ImportReport, Table, export_tensors, import_tensors, join
from converters.tresnet import Naming, linear_head_table, tresnet_table
from converters.verify import verify
from mljax.backbones.tresnet import TResNet
from mljax.checkpoint import save_model
from mljax.config import Part, Preprocessing
from mljax.heads import HEADS
from mljax.heads.linear import Linear
from mljax.model import Classifier, ModelSpec, abstract_model

BACKBONE_TABLES: dict[type[nnx.Module], Callable[..., Table]] = {TResNet: tresnet_table}
HEAD_TABLES: dict[type[nnx.Module], Callable[..., Table]] = {Linear: linear_head_table}


def from_torch(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    key: str | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    stem_slope: float | None = None,
    block_slope: float | None = None,
) -> Classifier:
    """Returns the network of a torch checkpoint, in eval mode.

    System, variant, head and number of classes are told from names and shapes. The arguments are
    what the file cannot tell.

    Args:
      source: path of a `.pth`, `.pth.tar`, `.ckpt` or `.safetensors` file, or a dict of arrays.
      key: the container's entry that holds the weights, such as `state_dict_ema`; None takes the
        usual one.
      class_names: in the order of the logits; None takes the file's, if it has them.
      image_size: side of the input in pixels; None takes it from a file name such as
        `..._448.pth`, else 224.
      mean: subtracted from images in [0, 1]; None takes the system's (TResNet: 0).
      std: divides them after that; None takes the system's (TResNet: 1).
      stem_slope: of the stem's leaky rectifier; None is 1e-2. The L_V2 of Alibaba-MIIL/TResNet
        (`stanford_cars_tresnet-l-v2_96_27.pth`) alone has 1e-6 here and in its blocks.
      block_slope: of the blocks' leaky rectifiers; None is 1e-3.

    Raises:
      ValueError: for a file that cannot be read, is of no known system, or does not fit it.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    file = read_torch(source, key=key)
    detection = detect(file.tensors, file.name)
    model, _ = build_model(file, detection, stem_slope=stem_slope, block_slope=block_slope)
    model.class_names = choose_class_names(file, detection, class_names)
    model.preprocessing = choose_preprocessing(file, detection, image_size, mean, std)
    return model


def to_torch(model: Classifier, *, naming: Naming = "original") -> dict[str, np.ndarray]:
    """Returns the state dict that the original code loads strictly, in its order.

    Args:
      model: a network for which there is a table.
      naming: `original`, with the raw weights of in-place activated batch norm, or `timm`, with
        its gains. Counters of batches are left out; both codes do without them.

    Raises:
      ValueError: for a backbone or head without a table.
    """
    return export_tensors(find_table(model, naming), model)


def find_table(model: Classifier, naming: Naming) -> Table:
    """Returns the table of a network, which may be abstract.

    Raises:
      ValueError: for a backbone or head without a table.
    """
    tables = []
    for part, known in ((model.backbone, BACKBONE_TABLES), (model.head, HEAD_TABLES)):
        if type(part) not in known:
            raise ValueError(
                f"there is no conversion table for {type(part).__name__}; "
                f"there are tables for {', '.join(kind.__name__ for kind in known)}"
            )
        tables.append(known[type(part)](part, naming))
    return join(*tables)


def build_model(
    file: TorchFile,
    detection: Detection,
    *,
    stem_slope: float | None = None,
    block_slope: float | None = None,
) -> tuple[Classifier, ImportReport]:
    """Returns the detected network with the file's weights, in eval mode, and what was done.

    Raises:
      ValueError: if there is no table for it, or the file does not fit it.
    """
    if detection.head.name not in HEADS:
        raise ValueError(
            f"{file.name}: is a {detection.description}; there is no conversion table for this "
            f"head yet, only for {', '.join(HEADS)}"
        )
    slopes = {"stem_slope": stem_slope, "block_slope": block_slope}
    slopes = {name: value for name, value in slopes.items() if value is not None}
    backbone = Part(name=detection.backbone.name, kwargs={**detection.backbone.kwargs, **slopes})
    # Abstract: the arrays come from the file, so nothing is initialized or compiled.
    model = abstract_model(
        ModelSpec(backbone=backbone, head=detection.head, num_classes=detection.num_classes)
    )
    report = import_tensors(find_table(model, detection.naming), file.tensors, model, file.name)
    return model, report


def choose_class_names(
    file: TorchFile, detection: Detection, class_names: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Returns the given class names, else the file's, else None.

    Raises:
      ValueError: if there is not one name per class.
    """
    names = file.class_names if class_names is None else tuple(class_names)
    if names is not None and len(names) != detection.num_classes:
        raise ValueError(
            f"{file.name}: {len(names)} class names for {detection.num_classes} classes; give one "
            "name per class, in the order of the logits"
        )
    return names


def choose_preprocessing(
    file: TorchFile,
    detection: Detection,
    image_size: int | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
) -> Preprocessing:
    """Returns the system's preprocessing with what is given, or what the file's name tells.

    Raises:
      ValueError: for an image size below 1 or a std that is not positive.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    if std is not None and min(std) <= 0:
        raise ValueError(f"std must be positive, got {std}")
    known = detection.preprocessing
    return Preprocessing(
        image_size=image_size or _size_in_name(file.name) or known.image_size,
        mean=mean or known.mean,
        std=std or known.std,
        resize=known.resize,
    )


def _size_in_name(name: str) -> int | None:
    """Returns the first number in a file's name that can be an image size: 448 in `x_448.pth`."""
    numbers = "".join(c if c.isdecimal() else " " for c in Path(name).stem).split()
    return next((int(n) for n in numbers if 128 <= int(n) <= 1024 and int(n) % 32 == 0), None)


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
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the input in pixels")
    for name, what in (("mean", "subtracted from RGB in [0, 1]"), ("std", "divides RGB then")):
        parser.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=what)
    for name, default in (("stem", "1e-2"), ("block", "1e-3")):
        text = f"of TResNet's leaky rectifiers ({default}; 1e-6 for the Stanford-Cars L_V2)"
        parser.add_argument(f"--{name}-slope", type=float, metavar="X", help=text)
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
    model, report = build_model(
        file, detection, stem_slope=arguments.stem_slope, block_slope=arguments.block_slope
    )
    model.class_names = choose_class_names(file, detection, names)
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
