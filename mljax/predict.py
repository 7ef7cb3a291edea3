"""Labels images: `python -m mljax.predict --checkpoint FOLDER IMAGE... [--output FOLDER]`.

How images are prepared, and above which score a class is predicted, is what the checkpoint has, in
its place what `--config` has, then what `--set` changes, then what an option of its own says.
Thresholds that `mljax.calibrate` found are what the checkpoint has, before its config.
"""

import argparse
import dataclasses
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console

from mljax.checkpoints.checkpoint import load_model, read_config
from mljax.config.load import load_config, override, unread_fields
from mljax.config.part import use_plugins
from mljax.config.schema import MAX_PIXELS, Config, EvalConfig, Preprocessing, Resize
from mljax.data.images import load_image
from mljax.devices.compilation_cache import compiling, use_compilation_cache
from mljax.evaluation.image_files import ImageFiles, find_image_files, show_path
from mljax.evaluation.pictures import annotate
from mljax.evaluation.predictions import Prediction, predict
from mljax.evaluation.stored_config import threshold_of
from mljax.formats import RUNTIMES
from mljax.models.classifier import Classifier
from mljax.terminal.command import (
    add_plugin_option,
    add_precision_option,
    add_set_option,
    run_command,
)
from mljax.terminal.grammar import counted
from mljax.terminal.progress import make_progress

# The fields of a config that decide here.
_READ = ("data.preprocessing", "data.max_pixels", "eval.threshold", "eval.matmul_precision")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if anything failed, such as one image, 130 by Ctrl-C, else 0."""
    arguments = _parse(argv)
    return run_command(lambda: _until_closed(arguments))


def _until_closed(arguments: argparse.Namespace) -> int:
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader of the results, such as `head`, has enough. Nothing is left to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace) -> int:
    use_plugins(arguments.plugin)
    if arguments.output is not None and arguments.output.is_file():
        raise ValueError(f"--output {arguments.output}: is a file, expected a folder")
    # A name that the terminal cannot show must not end the work on the other images.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    model = load_model(arguments.checkpoint)
    if model.class_names is None:
        print("the checkpoint has no class names: labels are class numbers", file=sys.stderr)
    config = _config(model, arguments)
    if arguments.config is not None:
        model.thresholds = None
    decisions = config.eval if config else EvalConfig()
    threshold = threshold_of(model, decisions.threshold, arguments.threshold, arguments.set)
    max_pixels = arguments.max_pixels
    if max_pixels is None:
        max_pixels = config.data.max_pixels if config else MAX_PIXELS
    preprocessing = config.data.preprocessing if config else model.preprocessing
    preprocessing = _preprocessing(preprocessing, arguments.image_size, arguments.resize)
    files = find_image_files(arguments.images)
    paths = files.images
    predictions = predict(
        model,
        paths,
        threshold=threshold,
        top_k=arguments.top_k,
        batch_size=arguments.batch_size,
        preprocessing=preprocessing,
        max_pixels=max_pixels,
        make=RUNTIMES[arguments.runtime],
        matmul_precision=arguments.matmul_precision or decisions.matmul_precision,
    )
    _print_passed_over(files)
    taken = {Path(path).resolve() for path in paths}
    at_once = min(arguments.batch_size, len(paths))
    program = f"{model.spec.backbone.name} + {model.spec.head.name}, {at_once} of {preprocessing}"
    bad = 0
    drawn = 0
    for prediction in _with_progress(predictions, len(paths), program):
        if prediction.error is not None:
            bad += 1
            print(f"skipped: {show_path(prediction.error)}", file=sys.stderr)
        print(_json(prediction) if arguments.json else _line(prediction, model, threshold))
        if arguments.output is not None and prediction.error is None:
            _save_annotated(prediction, arguments.output, taken, max_pixels)
            drawn += 1
    if drawn:
        where = show_path(str(arguments.output))
        print(f"{counted(drawn, 'picture')} with labels written to {where}", file=sys.stderr)
    if bad:
        print(f"{bad} of {counted(len(paths), 'image')} could not be read", file=sys.stderr)
    return 1 if bad else 0


def _config(model: Classifier, arguments: argparse.Namespace) -> Config | None:
    """Returns the config that says how images are prepared and what is predicted, if there is one.

    Raises:
      ValueError: for `--set` where there is no config.
    """
    given = arguments.config
    config = read_config(arguments.checkpoint) if given is None else load_config(given)
    if config is None:
        if arguments.set:
            raise ValueError(
                f"--set {arguments.set[0]}: {arguments.checkpoint} holds no config; name one by "
                "--config"
            )
        return None
    own, chosen = model.preprocessing, config.data.preprocessing
    if own is not None and given is None:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, preprocessing=own)
        )
    elif own is not None and own != chosen:
        print(
            f"images are prepared as --config {given} says: {chosen}; the checkpoint has {own}",
            file=sys.stderr,
        )
    changed = override(config, arguments.set)
    for unread in unread_fields(arguments.set, _READ):
        print(f"--set {unread} changes nothing here: predict does not read it", file=sys.stderr)
    return changed


def _preprocessing(
    found: Preprocessing | None,
    image_size: str | None,
    resize: Resize | None,
) -> Preprocessing | None:
    if image_size is not None:
        sides = [int(side) if side.isdecimal() else 0 for side in image_size.lower().split("x")]
        if not 1 <= len(sides) <= 2 or min(sides) < 1:
            raise ValueError(
                f"--image-size: got {image_size}, expected at least 1 pixel, as 448, or 320x640 "
                "(height x width)"
            )
        size = (sides[0], sides[-1])
        found = found or Preprocessing(image_size=size)
        found = dataclasses.replace(found, image_size=size)
    if resize is not None and found is not None:
        found = dataclasses.replace(found, resize=resize)
    return found


def _print_passed_over(files: ImageFiles) -> None:
    """Prints how many files in the folders were left out, and one of each kind."""
    kinds = []
    for paths, kind in ((files.others, "file"), (files.hidden, "hidden file")):
        if paths:
            kinds.append(f"{counted(len(paths), kind)}, such as {show_path(paths[0])}")
    if kinds:
        print(f"passed over, no image by name or content: {'; '.join(kinds)}", file=sys.stderr)


def _with_progress(
    predictions: Iterator[Prediction], total: int, program: str
) -> Iterator[Prediction]:
    # Results for a file or a pipe go there; those for the same screen go above the bar.
    on_screen = sys.stdout.isatty()
    console = Console(stderr=True)
    with make_progress(console, transient=True, redirect_stdout=on_screen) as progress:
        task = progress.add_task("predicting", total=total, status="")
        with compiling(progress, task, program, then="predicting"):
            first = list(itertools.islice(predictions, 1))
        for prediction in itertools.chain(first, predictions):
            yield prediction
            progress.advance(task)


def _json(prediction: Prediction) -> str:
    labels = [{"name": name, "score": score} for name, score in prediction.labels]
    line: dict[str, Any] = {"image": show_path(prediction.path), "labels": labels}
    if prediction.error is not None:
        line["error"] = show_path(prediction.error)
    return json.dumps(line)


def _line(prediction: Prediction, model: Classifier, threshold: float | None) -> str:
    path = show_path(prediction.path)
    if prediction.scores is None:
        return f"{path}: cannot be read"
    if prediction.labels:
        return f"{path}: {', '.join(_texts(prediction))}"
    best = int(np.argmax(prediction.scores))
    name = model.class_names[best] if model.class_names else str(best)
    highest = f"{name} {prediction.scores[best]:.2f}"
    if threshold is None:
        return f"{path}: no label above its threshold; the highest is {highest}"
    return f"{path}: no label above {threshold:g}; the closest is {highest}"


def _texts(prediction: Prediction) -> list[str]:
    return [f"{name} {score:.2f}" for name, score in prediction.labels]


def _save_annotated(
    prediction: Prediction, folder: Path, taken: set[Path], max_pixels: int
) -> None:
    """Writes `<name>-labels.jpg` into the folder, over no file in `taken`, and adds it there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(prediction.path).stem
    target, number = folder / f"{stem}-labels.jpg", 1
    while target.resolve() in taken:
        number += 1
        target = folder / f"{stem}-labels-{number}.jpg"
    taken.add(target.resolve())
    image = load_image(prediction.path, max_pixels=max_pixels)
    picture = annotate(image, _texts(prediction) or ["no label"])
    picture.save(target, quality=92)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.predict",
        description="Labels images. Exit code 1 if any image could not be read.",
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="a file, a folder or a glob such as 'a/*.jpg'")
    add("--checkpoint", required=True, help="a checkpoint folder, or a run's workdir")
    text = "a file, or a config that ships: its preprocessing and threshold, not the checkpoint's"
    add("--config", metavar="NAME[:ARGUMENT=VALUE,...]", help=text)
    add_set_option(parser)
    text = "predicted above; default: calibrated ones, else the config's, else 0.8"
    add("--threshold", type=float, help=text)
    add("--top-k", type=int, metavar="K", help="of the K highest scores, those above the threshold")
    add("--json", action="store_true", help="one line of JSON an image on standard output")
    add("--output", type=Path, metavar="FOLDER", help="where to save pictures with their labels")
    add("--batch-size", type=int, default=32, help="images at once (32)")
    text = "pixels in place of the checkpoint's: a side, or height x width, as 320x640"
    add("--image-size", metavar="N", help=text)
    add("--resize", choices=get_args(Resize), help="in place of the checkpoint's filter")
    add("--runtime", choices=RUNTIMES, default="jax", help="what computes the network")
    text = "of the largest image that is decoded; default: the config's, else 8192 x 8192"
    add("--max-pixels", type=int, metavar="N", help=text)
    add_precision_option(parser)
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
