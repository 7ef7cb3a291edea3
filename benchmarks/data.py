"""Photos from the disk to batches, beside torch's DataLoader with the same Pillow transforms.

    python -m benchmarks.data [--root FOLDER] [--repeats 5] [--workers 1]

Figures are images a second of one core: the CPU time of all processes is counted, so that other
programs on the machine hardly matter, and all sides run by turns. The torch side decodes, resizes
and augments to the same pixels, but shears and sharpens by Pillow alone, then does what
torchvision's ToTensor does, and its DataLoader makes the batches. `draft` is mljax with
`data.preprocessing.draft=True`, `kept` with `data.cache` from the second epoch on, `kept, plain`
the same without augmentation. The main process is measured with images in memory that have their
size already: what it does between the workers and the devices.

Without --root the photos are scikit-learn's two, at 640 x 480, in files of this program's own.
"""

import argparse
import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset, RandomSampler

from mljax.config import Preprocessing
from mljax.data.augment import cutout, randaugment
from mljax.data.images import read_image, resize_image
from mljax.data.pipeline import eval_batches, train_batches
from mljax.data.records import Records
from mljax.devices.mesh import make_mesh, put_batch

BATCH, CLASSES = 32, 80
SIDES = ("mljax", "draft", "kept", "kept, plain")
AUGMENT = (functools.partial(cutout, factor=0.5), randaugment)


@dataclass
class Photos(Dataset):
    """The torch side: Pillow's transforms, then `ToTensor` as torchvision writes it."""

    paths: list[str]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = resize_image(Image.open(self.paths[index]).convert("RGB"), self.preprocessing)
        rng = np.random.default_rng(torch.initial_seed() % 2**32 + index)
        for augment in AUGMENT:
            image = augment(image, rng)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255), torch.zeros(CLASSES)


def augment_by_pillow(_worker: int) -> None:
    """Lets RandAugment shear and sharpen by Pillow's own functions in this process."""

    def shear(matrix: Callable[[float], tuple]) -> Callable:
        how = {"resample": Image.Resampling.BICUBIC, "fillcolor": (128, 128, 128)}
        affine = Image.Transform.AFFINE
        return lambda image, slope: image.transform(image.size, affine, matrix(slope), **how)

    module = sys.modules[randaugment.__module__]
    module.shear_x = shear(lambda slope: (1, slope, 0, 0, 1, 0))
    module.shear_y = shear(lambda slope: (1, 0, 0, slope, 1, 0))
    module.smooth = lambda image: image.filter(ImageFilter.SMOOTH)


def cpu_seconds() -> float:
    """Returns the CPU time of this process and its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def settled_cpu_seconds() -> float:
    """Returns the CPU time once everything that reads ahead has filled its buffers."""
    before = -1.0
    while (now := cpu_seconds()) - before > 0.02:
        before = now
        time.sleep(0.5)
    return now


def rate(next_batch: Callable[[], object], batches: int) -> float:
    """Returns the images a second of one core over some batches.

    The buffers are full before and after, so that as many batches are made as are taken.
    """
    began = settled_cpu_seconds()
    for _ in range(batches):
        next_batch()
    return batches * BATCH / (settled_cpu_seconds() - began)


def of_function(function: Callable[[object], object], items: list) -> Callable[[], float]:
    """Returns a measurement of a function: items a second."""

    def measure() -> float:
        began = time.process_time()
        for item in items:
            function(item)
        return len(items) / (time.process_time() - began)

    return measure


def pieces(paths: list[str], preprocessing: Preprocessing) -> dict[str, Callable[[], float]]:
    """Returns measurements of decoding, resizing and augmenting alone."""
    draft = functools.partial(read_image, enough=preprocessing.height_width)
    images = [read_image(path)[0] for path in paths]
    resized = [resize_image(image, preprocessing) for image in images]
    rng = np.random.default_rng(0)
    return {
        "decode": of_function(read_image, paths),
        "decode, draft": of_function(draft, paths),
        "resize": of_function(lambda image: resize_image(image, preprocessing), images),
        "cutout": of_function(lambda image: AUGMENT[0](image, rng), resized),
        "RandAugment": of_function(lambda image: AUGMENT[1](image, rng), resized),
    }


def pipelines(
    stack: ExitStack, paths: list[str], preprocessing: Preprocessing, workers: int
) -> dict[str, Callable[[], float]]:
    """Returns measurements of the whole way to a batch."""

    def ours(
        records: Records,
        preprocessing: Preprocessing,
        augment: tuple,
        cache: str | None = None,
    ) -> Callable:
        batches = train_batches(
            records,
            preprocessing=preprocessing,
            augment=augment,
            batch_size=BATCH,
            seed=0,
            num_workers=workers,
            cache=cache,
        )
        return stack.enter_context(batches).__next__

    def records_of(images: object) -> Records:
        names = tuple(str(number) for number in range(CLASSES))
        labels = np.zeros((len(images), CLASSES), np.int8)
        return Records(images=images, labels=labels, class_names=names)

    dataset = Photos(paths, preprocessing)
    order = RandomSampler(dataset, replacement=True, num_samples=10**6)
    loader = DataLoader(
        dataset,
        BATCH,
        sampler=order,
        num_workers=workers,
        worker_init_fn=augment_by_pillow,
        # As grain's workers; a fork of a process with JAX in it can hang.
        multiprocessing_context="spawn",
    )
    cache = stack.enter_context(tempfile.TemporaryDirectory())
    options = {"preprocessing": preprocessing, "batch_size": BATCH, "cache": cache}
    with eval_batches(records_of(sorted(set(paths))), **options) as batches:
        for _ in batches:
            pass
    sides = {
        "torch": iter(loader).__next__,
        "mljax": ours(records_of(paths), preprocessing, AUGMENT),
        "draft": ours(records_of(paths), replace(preprocessing, draft=True), AUGMENT),
        "kept": ours(records_of(paths), preprocessing, AUGMENT, cache),
        "kept, plain": ours(records_of(paths), preprocessing, (), cache),
    }
    # The first batch pays for the start of the workers.
    for side in sides.values():
        side()
    # What reads no files is so quick that it needs more batches for as long a time.
    count = 8
    found = {
        name: functools.partial(rate, side, count * (4 if "kept" in name else 1))
        for name, side in sides.items()
    }
    pixels = np.zeros((4 * BATCH, *preprocessing.height_width, 3), np.uint8)
    source, mesh = ours(records_of(pixels), preprocessing, ()), make_mesh()

    def main_process() -> float:
        began = time.process_time()
        for _ in range(4 * count):
            put_batch({"images": source()["images"]}, mesh)
        return 4 * count * BATCH / (time.process_time() - began)

    return found | {"main process": main_process}


def make_photos(folder: Path) -> Path:
    """Writes scikit-learn's two photos as JPEG files a few times; returns their folder."""
    for number, pixels in enumerate([*load_sample_images().images] * 16):
        Image.fromarray(pixels).resize((640, 480)).save(folder / f"{number}.jpg", quality=90)
    return folder


def main() -> None:
    """Measures by turns and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data")
    parser.add_argument("--root", type=Path, help="a folder with JPEG photos")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes of each side")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: expected at least 1")
    torch.set_num_threads(1)
    table = Table(title="images a second of one core, medians")
    for column in ("pixels", "what", "images/s", "of torch's"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or make_photos(Path(folder))
        paths = sorted(map(str, root.rglob("*.jpg")))[:128]
        if not paths:
            parser.error(f"--root {root}: holds no *.jpg")
        # grain takes half a millisecond to find the place of one of so few examples
        # (findings/grain_small_shuffles.sh), which no real data set pays.
        paths *= 2**16 // len(paths)
        for size in (224, 448):
            preprocessing = Preprocessing(image_size=size)
            with ExitStack() as stack:
                measurements = pieces(paths[:64], preprocessing)
                measurements |= pipelines(stack, paths, preprocessing, arguments.workers)
                found = {name: [] for name in measurements}
                for _ in range(arguments.repeats):
                    for name, measure in measurements.items():
                        found[name].append(measure())
            medians = {name: statistics.median(values) for name, values in found.items()}
            for name, value in medians.items():
                ratio = f"{value / medians['torch']:.2f}" if name in SIDES else ""
                table.add_row(str(size), name, f"{value:,.0f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
