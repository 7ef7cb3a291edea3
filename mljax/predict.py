"""Labels images: `python -m mljax.predict --checkpoint FOLDER IMAGE... [--output FOLDER]`.

The protocols of the published inference scripts, all of which resize bicubically:

    ASL         --resize bicubic --threshold 0.7 (OpenImages: 0.995)
    CSL         --resize bicubic --threshold 0.97 --top-k 30
    ML-Decoder  --resize bicubic --threshold 0.75 (OpenImages: 0.97) --top-k 20
"""

import argparse
import dataclasses
import glob
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import Progress

from mljax.checkpoints.checkpoint import load_model, read_recipe
from mljax.config.schema import EvalConfig, Preprocessing
from mljax.data.images import load_image
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.evaluate import make_apply, sigmoid, whole_batch
from mljax.models.classifier import Classifier
from mljax.training.check import check_threshold

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of one image.

    Attributes:
      path: of the image.
      labels: name and score of each predicted class, the highest score first.
      scores: of all classes, in [0, 1]; None for a bad image.
      error: why the image could not be read, or None.
    """

    path: str
    labels: tuple[tuple[str, float], ...]
    scores: Float[np.ndarray, " k"] | None
    error: str | None = None


def predict(
    model: Classifier,
    paths: Sequence[str | Path],
    *,
    threshold: float = 0.8,
    top_k: int | None = None,
    batch_size: int = 32,
    preprocessing: Preprocessing | None = None,
) -> Iterator[Prediction]:
    """Returns predictions for all images, in order, made as they are asked for.

    The network runs in batches, on all local devices. A bad image does not stop the others: its
    prediction has an `error`.

    Args:
      model: in eval mode. A model without class names gives the class numbers, from 0, as names.
      paths: image files.
      threshold: a class is predicted where its score is above.
      top_k: only the k highest scores can be above the threshold; None is no limit.
      batch_size: images that the network reads at once.
      preprocessing: None takes the model's.

    Raises:
      ValueError: if neither the model nor the caller gives a preprocessing, or for a top_k or
        batch_size below 1.
    """
    preprocessing = preprocessing or model.preprocessing
    if preprocessing is None:
        raise ValueError(
            "the model does not say how its images are prepared: give `preprocessing` "
            "(--image-size N on the command line)"
        )
    check_threshold(threshold, top_k)
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if not paths:
        return iter(())
    images = [str(path) for path in paths]
    return _predict(model, images, threshold, top_k, batch_size, preprocessing)


def _predict(
    model: Classifier,
    images: list[str],
    threshold: float,
    top_k: int | None,
    batch_size: int,
    preprocessing: Preprocessing,
) -> Iterator[Prediction]:
    number = model.spec.num_classes
    names = model.class_names or tuple(str(c) for c in range(number))
    unknown = np.broadcast_to(np.int8(-1), (len(images), number))
    batches = eval_batches(
        Records(images=images, labels=unknown, class_names=names),
        preprocessing=preprocessing,
        batch_size=whole_batch(min(batch_size, len(images))),
        bad_images="skip",
    )
    apply = make_apply(model)
    with batches:
        for batch in batches:
            scores = sigmoid(apply(batch["images"]))
            for row in np.flatnonzero(batch["index"] >= 0):
                path = images[batch["index"][row]]
                if batch["valid"][row]:
                    labels = _labels(scores[row], names, threshold, top_k)
                    yield Prediction(path=path, labels=labels, scores=scores[row])
                else:
                    yield Prediction(path=path, labels=(), scores=None, error=_reason(path))


def _labels(
    scores: Float[np.ndarray, " k"], names: Sequence[str], threshold: float, top_k: int | None
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple((names[int(c)], float(scores[c])) for c in order if scores[c] > threshold)


def _reason(path: str) -> str:
    """Returns why an image cannot be read; the pipeline only says that it cannot."""
    try:
        load_image(path)
    except ValueError as error:
        return str(error)
    return f"{path}: could not be read, but can be now; was it still being written?"


def find_images(patterns: Sequence[str]) -> list[str]:
    """Returns the image files that files, folders and globs stand for, each once.

    A folder stands for all images in it and below it, sorted. What stands for nothing is returned
    as it is, so that it is reported as an image that cannot be read.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = [Path(pattern)]
        if not matches[0].exists():
            matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        for match in matches:
            if match.is_dir():
                below = sorted(p for p in match.rglob("*") if p.suffix.lower() in SUFFIXES)
                found += [str(p) for p in below] or [str(match)]
            else:
                found.append(str(match))
        if not matches:
            found.append(pattern)
    return list(dict.fromkeys(found))


def annotate(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Returns a copy of an RGB image with lines of text on a white strip below it.

    A small image is enlarged, so that its content is recognizable beside the text.
    """
    # Limited for the sake of long, thin images.
    scale = max(1, min(math.ceil(256 / min(image.size)), 1024 // max(image.size)))
    # Without smoothing: the pixels that the network saw stay visible.
    size = (image.width * scale, image.height * scale)
    image = image.resize(size, Image.Resampling.NEAREST)
    text_size = max(14, min(image.size) // 24)
    font: Any = ImageFont.load_default(size=text_size)
    rows = _flow(lines, font, image.width - text_size)
    width = max(image.width, *(math.ceil(font.getlength(row)) + text_size for row in rows))
    row_height, margin = math.ceil(1.4 * text_size), text_size // 2
    canvas = Image.new("RGB", (width, image.height + len(rows) * row_height + 2 * margin), "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        draw.text((margin, image.height + margin + number * row_height), row, "black", font=font)
    return canvas


def _flow(lines: Sequence[str], font: Any, width: int) -> list[str]:  # noqa: ANN401
    """Returns rows of as many lines side by side as fit the width in pixels."""
    rows: list[str] = []
    for line in lines:
        joined = f"{rows[-1]}     {line}" if rows else line
        if rows and font.getlength(joined) <= width:
            rows[-1] = joined
        else:
            rows.append(line)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if anything failed, such as one image, 130 by Ctrl-C, else 0."""
    arguments = _parse(argv)
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader of the results, such as `head`, has enough. Nothing is left to be flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.output is not None and arguments.output.is_file():
        raise ValueError(f"--output {arguments.output}: is a file, expected a folder")
    model = load_model(arguments.checkpoint)
    if model.class_names is None:
        print("the checkpoint has no class names: labels are class numbers", file=sys.stderr)
    recipe = read_recipe(arguments.checkpoint)
    threshold = arguments.threshold
    if threshold is None:
        threshold = (recipe.eval if recipe else EvalConfig()).threshold
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
    add("--threshold", type=float, help="predicted above; default: the recipe's, else 0.8")
    add("--top-k", type=int, metavar="K", help="of the K highest scores, those above the threshold")
    add("--json", action="store_true", help="one line of JSON an image on standard output")
    add("--output", type=Path, metavar="FOLDER", help="where to save pictures with their labels")
    add("--batch-size", type=int, default=32, help="images at once (32)")
    add("--image-size", type=int, metavar="N", help="side in pixels in place of the checkpoint's")
    add("--resize", choices=("bilinear", "bicubic"), help="in place of the checkpoint's filter")
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
