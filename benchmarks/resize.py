"""What it costs to resize images otherwise than a network was trained and validated with.

    python -m benchmarks.resize --root FOLDER [--set PATH=VALUE]

Trains the config asl/csv on the photos of a folder (train.csv, val.csv), whose images are resized
as in the training and the validation of ASL, ML-Decoder, CSL, KMCL and MulCon. Then the validation
photos are resized as each published protocol does, and the same network scores them. One table:
the mAP, its difference from the first row, and how far the logits move.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mljax import config
from mljax.checkpoints.checkpoint import load_model
from mljax.config.part import resolved
from mljax.data.images import load_image, resize_image
from mljax.metrics.ranking import mean_average_precision
from mljax.models.inference import make_apply
from mljax.train import fit

Resize = Callable[[Image.Image, config.Preprocessing], Image.Image]


def squash(filter_name: str) -> Resize:
    """Returns a resize to height and width, whatever the aspect."""
    return lambda image, own: resize_image(image, replace(own, resize=filter_name))


def central(image: Image.Image, own: config.Preprocessing) -> Image.Image:
    """Returns the center of the image whose shorter side became size / 0.875."""
    height, width = own.height_width
    scale = max(height / image.height, width / image.width) / 0.875
    size = (int(image.width * scale), int(image.height * scale))
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    image = image.resize(size, Image.Resampling.BILINEAR)
    return image.crop((left, top, left + width, top + height))


PROTOCOLS: dict[str, Resize] = {
    "squash, bilinear: training and validation": squash("bilinear"),
    "squash, bicubic: the inference scripts": squash("bicubic"),
    "squash, OpenCV's bilinear: AAM": squash("cv2_bilinear"),
    "shorter side / 0.875, center, bilinear: ImageNet": central,
}
BATCH = 64


def main() -> None:
    """Trains once, scores the photos by every protocol, prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resize")
    parser.add_argument("--root", required=True, help="a folder with train.csv and val.csv")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    console = Console()
    changes = [f"data.reader.kwargs.root={arguments.root}", *arguments.set]
    chosen = config.override(config.load_config("asl/csv"), changes)
    with tempfile.TemporaryDirectory() as folder:
        fit(chosen, Path(folder) / "run", console=console)
        model = load_model(Path(folder) / "run")
    records = resolved(chosen.data.reader, "reader")(chosen.data.eval_split)
    images = [load_image(path) for path in records.images]
    own = chosen.data.preprocessing
    apply = make_apply(model, preprocessing=own)

    found = {}
    for name, resize in track(PROTOCOLS.items(), "scoring", console=console, transient=True):
        pixels = np.stack([np.asarray(resize(image, own)) for image in images])
        # Batches of one size: the first photos once more, and cut off again.
        padded = np.resize(pixels, (-(-len(pixels) // BATCH) * BATCH, *pixels.shape[1:]))
        batches = padded.reshape(-1, BATCH, *padded.shape[1:])
        logits = np.concatenate([apply(batch)["logits"] for batch in batches])[: len(pixels)]
        found[name] = (mean_average_precision(logits, records.labels), logits)

    height, width = own.height_width
    table = Table(
        title=f"{len(images)} photos at {height} x {width}, {chosen.train.epochs:g} epochs, "
        f"{jax.devices()[0].device_kind}"
    )
    for column in ("resize", "mAP", "difference", "logits: mean", "largest"):
        table.add_column(column, justify="left" if column == "resize" else "right")
    reference, base = next(iter(found.values()))
    for name, (score, logits) in found.items():
        moved = np.abs(logits - base)
        numbers = (f"{score:.2f}", f"{score - reference:+.2f}")
        table.add_row(name, *numbers, f"{moved.mean():.3f}", f"{moved.max():.3f}")
    console.print(table)
    spread = found[next(iter(PROTOCOLS))][1].std()
    console.print(f"standard deviation of the logits: {spread:.3f}")


if __name__ == "__main__":
    main()
