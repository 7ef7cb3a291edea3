"""Labels images: `python -m mljax.predict --checkpoint FOLDER IMAGE... [--output FOLDER]`."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from mljax.checkpoints.checkpoint import load_model, read_config
from mljax.config.part import use_plugins
from mljax.config.schema import EvalConfig, Preprocessing
from mljax.data.images import load_image
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.evaluation.pictures import annotate
from mljax.evaluation.predictions import Prediction, find_images, predict
from mljax.models.classifier import Classifier
from mljax.terminal.command import add_plugin_option, run_command


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
    model = load_model(arguments.checkpoint)
    if model.class_names is None:
        print("the checkpoint has no class names: labels are class numbers", file=sys.stderr)
    threshold = arguments.threshold
    if threshold is None:
        config = read_config(arguments.checkpoint)
        threshold = (config.eval if config else EvalConfig()).threshold
    paths = find_images(arguments.images)
    predictions = predict(
        model,
        paths,
        threshold=threshold,
        top_k=arguments.top_k,
        batch_size=arguments.batch_size,
        preprocessing=_preprocessing(model, arguments.image_size, arguments.resize),
    )
    taken = {Path(path).resolve() for path in paths}
    bad = 0
    for prediction in _with_progress(predictions, len(paths)):
        if prediction.error is not None:
            bad += 1
            print(f"skipped: {prediction.error}", file=sys.stderr)
        print(_json(prediction) if arguments.json else _line(prediction, model, threshold))
        if arguments.output is not None and prediction.error is None:
            _save_annotated(prediction, arguments.output, taken)
    if bad:
        print(f"{bad} of {len(paths)} images could not be read", file=sys.stderr)
    return 1 if bad else 0


def _preprocessing(
    model: Classifier, image_size: int | None, resize: Literal["bilinear", "bicubic"] | None
) -> Preprocessing | None:
    if image_size is not None and image_size < 1:
        raise ValueError(f"--image-size: got {image_size}, expected at least 1 pixel")
    found = model.preprocessing
    if image_size is not None:
        found = found or Preprocessing(image_size=image_size)
        found = dataclasses.replace(found, image_size=image_size)
    if resize is not None and found is not None:
        found = dataclasses.replace(found, resize=resize)
    return found


def _with_progress(predictions: Iterator[Prediction], total: int) -> Iterator[Prediction]:
    console = Console(stderr=True)
    # Results for a file or a pipe go there; those for the same screen go above the bar.
    on_screen = sys.stdout.isatty()
    hidden = not console.is_terminal
    with Progress(
        console=console, transient=True, disable=hidden, redirect_stdout=on_screen
    ) as progress:
        yield from progress.track(predictions, total, description="predicting")


def _json(prediction: Prediction) -> str:
    labels = [{"name": name, "score": score} for name, score in prediction.labels]
    line: dict[str, Any] = {"image": prediction.path, "labels": labels}
    if prediction.error is not None:
        line["error"] = prediction.error
    return json.dumps(line)


def _line(prediction: Prediction, model: Classifier, threshold: float) -> str:
    if prediction.scores is None:
        return f"{prediction.path}: cannot be read"
    if prediction.labels:
        return f"{prediction.path}: {', '.join(_texts(prediction))}"
    best = int(np.argmax(prediction.scores))
    name = model.class_names[best] if model.class_names else str(best)
    closest = f"the closest is {name} {prediction.scores[best]:.2f}"
    return f"{prediction.path}: no label above {threshold:g}; {closest}"


def _texts(prediction: Prediction) -> list[str]:
    return [f"{name} {score:.2f}" for name, score in prediction.labels]


def _save_annotated(prediction: Prediction, folder: Path, taken: set[Path]) -> None:
    """Writes `<name>-labels.jpg` into the folder, over no file in `taken`, and adds it there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(prediction.path).stem
    target, number = folder / f"{stem}-labels.jpg", 1
    while target.resolve() in taken:
        number += 1
        target = folder / f"{stem}-labels-{number}.jpg"
    taken.add(target.resolve())
    picture = annotate(load_image(prediction.path), _texts(prediction) or ["no label"])
    picture.save(target, quality=92)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.predict",
        description="Labels images. Exit code 1 if any image could not be read.",
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="a file, a folder or a glob such as 'a/*.jpg'")
    add("--checkpoint", required=True, help="a checkpoint folder, or a run's workdir")
    add("--threshold", type=float, help="predicted above; default: the config's, else 0.8")
    add("--top-k", type=int, metavar="K", help="of the K highest scores, those above the threshold")
    add("--json", action="store_true", help="one line of JSON an image on standard output")
    add("--output", type=Path, metavar="FOLDER", help="where to save pictures with their labels")
    add("--batch-size", type=int, default=32, help="images at once (32)")
    add("--image-size", type=int, metavar="N", help="side in pixels in place of the checkpoint's")
    add("--resize", choices=("bilinear", "bicubic"), help="in place of the checkpoint's filter")
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
