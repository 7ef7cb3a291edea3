"""Damaged pictures and torch files, and a long run: what is refused, and what grows, counted.

    python -m benchmarks.robustness [--pictures 7200] [--torch-files 360] [--steps 500] [--write]

A picture or torch file is cut off at a random byte, has up to 16 bytes changed, or loses some from
its middle. Reading it may succeed, or raise a ValueError that begins with its name; all else is a
fault. The long run trains the miniature of `benchmarks.reliability`; memory, open files and threads
after its first fifth and at its end are compared. `--write` puts the counts into
docs/reliability.md. Linux alone: it reads /proc.
"""

import argparse
import io
import os
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from benchmarks.reliability import DOCUMENT, logged_step, make_config, write_counts
from converters.files.safe_load import read_file
from mljax.data.images import load_image
from mljax.train import fit

HEADING = "## Damaged files and long runs"
COUNTS = f"""{HEADING}

Counted by `python -m benchmarks.robustness {{options}}`:

| trial | times | refused by name | read | anything else |
| --- | --- | --- | --- | --- |
{{rows}}
"""
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns a file cut off, with some bytes changed, or without some of its middle."""
    at = int(rng.integers(1, len(content)))
    kind = rng.integers(3)
    if kind == 0:
        return content[:at]
    if kind == 1:
        changed = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 17)):
            changed[place] ^= int(rng.integers(1, 256))
        return bytes(changed)
    return content[:at] + content[at + int(rng.integers(1, 64)) :]


def outcome(read: Callable[[Path], object], path: Path) -> str:
    """Returns whether a file was `read`, `refused` by its name, or the error that it raised."""
    try:
        read(path)
    except ValueError as error:
        return "refused" if str(error).startswith(str(path)) else f"ValueError: {error}"
    # Any other error is the fault that is counted here.
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def pictures(rng: np.random.Generator) -> list[bytes]:
    """Returns a small picture in each format, in color and in grey."""
    pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    contents = []
    for image in (Image.fromarray(pixels), Image.fromarray(pixels[..., 0])):
        for name in FORMATS:
            buffer = io.BytesIO()
            image.save(buffer, name)
            contents.append(buffer.getvalue())
    return contents


def torch_files(rng: np.random.Generator) -> list[bytes]:
    """Returns a small checkpoint in torch's two formats."""
    weights = {f"layer{i}.weight": torch.tensor(rng.normal(size=(4, 3))) for i in range(4)}
    contents = []
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"state_dict": weights}, buffer, _use_new_zipfile_serialization=zipped)
        contents.append(buffer.getvalue())
    return contents


def count_outcomes(
    contents: Sequence[bytes], read: Callable[[Path], object], times: int, rng: np.random.Generator
) -> Counter[str]:
    """Returns how often each outcome was seen with damaged copies."""
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(times):
            path = Path(folder) / f"damaged{number}"
            path.write_bytes(damage(contents[number % len(contents)], rng))
            seen[outcome(read, path)] += 1
            path.unlink()
    return seen


def growth(steps: int) -> dict[str, float]:
    """Returns how much MiB, open files and threads grew over a run after its first fifth."""
    samples: list[tuple[int, tuple[float, int, int]]] = []
    done = threading.Event()
    config = make_config()
    config = replace(config, train=replace(config.train, epochs=steps / 10))
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"

        def sample() -> None:
            while not done.wait(0.2):
                samples.append((logged_step(workdir), usage()))

        thread = threading.Thread(target=sample)
        thread.start()
        fit(config, workdir, console=Console(quiet=True))
        done.set()
        thread.join()
    early = [use for step, use in samples if steps / 5 <= step < 2 * steps / 5]
    late = [use for step, use in samples if step >= 4 * steps / 5]
    before, after = (np.median(part, axis=0) for part in (early, late))
    return dict(zip(("MiB", "open files", "threads"), (after - before).tolist(), strict=True))


def usage() -> tuple[float, int, int]:
    """Returns resident MiB, open files and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    threads = len(os.listdir("/proc/self/task"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")), threads


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all trials and prints their counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness")
    parser.add_argument("--pictures", type=int, default=7200)
    parser.add_argument("--torch-files", type=int, default=360)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="the counts into docs/reliability.md")
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(arguments.seed)
    rows = []
    for name, contents, read, times in (
        ("damaged picture", pictures(rng), load_image, arguments.pictures),
        ("damaged torch file", torch_files(rng), read_file, arguments.torch_files),
    ):
        began = time.perf_counter()
        seen = count_outcomes(contents, read, times, rng)
        refused, succeeded = seen.pop("refused", 0), seen.pop("read", 0)
        rows.append(f"| {name} | {times} | {refused} | {succeeded} | {seen.total()} |")
        print(f"{rows[-1]} {time.perf_counter() - began:.0f} s", *seen, sep="\n")
    more = ", ".join(f"{name} {value:+.0f}" for name, value in growth(arguments.steps).items())
    rows.append(f"| growth in {arguments.steps} steps after the first fifth | 1 | | | {more} |")
    options = (
        f"--pictures {arguments.pictures} --torch-files {arguments.torch_files} "
        f"--steps {arguments.steps}"
    )
    text = COUNTS.format(options=options, rows="\n".join(rows))
    print(text)
    if arguments.write:
        write_counts(DOCUMENT, text, HEADING)


if __name__ == "__main__":
    main()
