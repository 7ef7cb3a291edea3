"""Writes a checkpoint for other runtimes: `python -m mljax.export --checkpoint FOLDER ...`.

The file has a batch of any size, what no image changes is computed once, and it is compared with
the checkpoint on images before it is left where it was asked for.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

import mljax.data  # noqa: F401
from mljax.checkpoints.checkpoint import load_model, read_config
from mljax.config.part import use_plugins
from mljax.config.schema import EvalConfig, Preprocessing
from mljax.data.images import load_image, resize_image
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.evaluation.decisions import decision_of
from mljax.evaluation.image_files import find_images
from mljax.evaluation.stored_config import threshold_of
from mljax.formats import FORMATS
from mljax.formats.computation import make_computation
from mljax.formats.verification import verify
from mljax.models.classifier import Classifier
from mljax.terminal.command import add_plugin_option, run_command
from mljax.terminal.grammar import counted

# Drawn where no photos are given.
_DRAWN = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    use_plugins(arguments.plugin)
    output, form = arguments.output.absolute(), FORMATS[arguments.format]
    if output.exists():
        raise FileExistsError(f"{output} exists already; name another file or remove it")
    if arguments.preprocessing and not form.computes:
        raise ValueError(f"--preprocessing: {arguments.format} holds arrays, which compute nothing")
    model = load_model(arguments.checkpoint)
    config = read_config(arguments.checkpoint)
    preprocessing = model.preprocessing or (config and config.data.preprocessing)
    if preprocessing is None:
        raise ValueError(f"{arguments.checkpoint} does not say how its images are prepared")
    computation = make_computation(
        model,
        preprocessing=preprocessing,
        normalize=arguments.preprocessing,
        thresholds=_thresholds(model, config.eval if config else EvalConfig()),
    )
    pixels = _pixels(arguments.images, preprocessing)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Some formats are several files, and none may stay that was not verified.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        written = Path(folder) / output.name
        form.write(written, model, computation)
        differences = verify(written, form, model, computation, pixels, preprocessing)
        for how, difference in differences.items():
            print(
                f"largest difference of {counted(len(pixels), 'image')}: {difference:.1e} ({how})"
            )
        for file in sorted(Path(folder).iterdir()):
            file.rename(output.with_name(file.name))
            print(f"written to {output.with_name(file.name)}")


def _thresholds(model: Classifier, decisions: EvalConfig) -> list[float]:
    """Returns the logit above which each class is predicted; of a head without classes none."""
    if not getattr(model.head, "classifies", True):
        return []
    decision = decision_of(model, threshold_of(model, decisions.threshold, None, ()))
    if decision.logit is not None:
        return decision.logit.tolist()
    # Of the scores 0 and 1 it is infinite, which JSON has no number for.
    score = np.float32(decision.score)
    with np.errstate(divide="ignore"):
        logit = np.nan_to_num(np.log(score) - np.log1p(-score))
    return [float(logit)] * model.spec.num_classes


def _pixels(paths: Sequence[str], preprocessing: Preprocessing) -> UInt8[np.ndarray, "b h w 3"]:
    """Returns the photos, resized as the network reads them, or as many drawn images."""
    if not paths:
        shape = (_DRAWN, *preprocessing.height_width, 3)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    photos = [load_image(path) for path in find_images(paths)]
    pixels = np.stack([np.asarray(resize_image(photo, preprocessing)) for photo in photos])
    # Of one or two the last is repeated: a batch of one and one of more are compared.
    return np.concatenate([pixels, *[pixels[-1:]] * (3 - len(pixels))])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.export",
        description="Writes a checkpoint for another runtime, and compares both on images.",
    )
    add = parser.add_argument
    text = "files or folders of photos to compare on; default: images that are drawn"
    add("images", nargs="*", metavar="IMAGE", help=text)
    add("--checkpoint", required=True, help="a checkpoint folder, or a run's workdir")
    add("--format", required=True, choices=FORMATS)
    add("--output", required=True, type=Path, metavar="FILE", help="for openvino one that is .xml")
    text = "read uint8 pixels [b, h, w, 3] of the network's size, and normalize them inside"
    add("--preprocessing", action="store_true", help=text)
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
