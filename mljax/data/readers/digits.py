"""The embedded data set: scikit-learn's handwritten digits, several on one canvas.

The 1,797 digits of 8x8 pixels (UCI ML repository, Alpaydin and Kaynak 1998,
https://archive.ics.uci.edu/dataset/80) ship with scikit-learn, so nothing is downloaded. Each
canvas holds one to four of them without overlap; its labels say which of the ten digits occur.
"""

import numpy as np
from PIL import Image

from mljax.data.records import Records

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Shares of the source digits, and default numbers of canvases, of each split.
_SPLITS = {"train": (0.0, 0.7, 4096), "val": (0.7, 0.85, 1024), "test": (0.85, 1.0, 1024)}
_MIN_CANVAS = 16


def digits(
    split: str,
    *,
    num_images: int | None = None,
    canvas_size: int = 32,
    max_digits: int = 4,
    seed: int = 0,
) -> Records:
    """Composes canvases from the digits that belong to one split.

    The partition of the source digits does not depend on `seed`: no digit of one split is ever
    seen in another, whatever the seeds.

    Args:
      split: `train`, `val` or `test`.
      num_images: canvases to compose; None takes 4096 for `train` and 1024 for the others.
      canvas_size: side of the square canvas, in pixels.
      max_digits: a canvas has from 1 to this many, at most 4; 1 makes a data set of single labels.
      seed: of the composition.

    Returns:
      Records whose images are uint8 `[num_images, canvas_size, canvas_size, 3]`.

    Raises:
      ValueError: if the split is unknown, or a number is too small.
    """
    if split not in _SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(_SPLITS)}")
    first, last, default_count = _SPLITS[split]
    count = default_count if num_images is None else num_images
    if count < 1:
        raise ValueError(f"num_images: got {count}, expected at least 1")
    if canvas_size < _MIN_CANVAS:
        raise ValueError(f"canvas_size: got {canvas_size} pixels, expected at least {_MIN_CANVAS}")

    if not 1 <= max_digits <= 4:
        raise ValueError(f"max_digits: got {max_digits}, expected 1 to 4")

    sources, classes = _source_digits(first, last)
    rng = np.random.default_rng([seed, list(_SPLITS).index(split)])
    images = np.empty((count, canvas_size, canvas_size, 3), np.uint8)
    labels = np.zeros((count, len(CLASS_NAMES)), np.int8)
    for row in range(count):
        chosen = rng.choice(len(sources), size=rng.integers(1, max_digits + 1), replace=False)
        labels[row, classes[chosen]] = 1
        images[row] = _compose(sources[chosen], canvas_size, rng)
    return Records(images=images, labels=labels, class_names=CLASS_NAMES)


def _source_digits(first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the digits `[n, 8, 8]`, uint8, and classes `[n]` of a share of the source set."""
    # Importing scikit-learn takes seconds, also in every worker of every other data set.
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    order = order[round(first * len(order)) : round(last * len(order))]
    grey = np.round(pixels[order] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return grey, classes[order]


def _compose(sources: np.ndarray, canvas_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws each digit, at its own size and brightness, into its own quarter of a noisy canvas."""
    cell = canvas_size // 2
    ink = np.zeros((canvas_size, canvas_size), np.float32)
    quarters = rng.permutation(4)[: len(sources)]
    for source, quarter in zip(sources, quarters, strict=True):
        side = int(rng.integers((2 * cell + 2) // 3, cell + 1))
        top, left = rng.integers(0, cell - side + 1, size=2) + cell * np.array(divmod(quarter, 2))
        glyph = Image.fromarray(source).resize((side, side), Image.Resampling.BILINEAR)
        brightness = rng.uniform(0.5, 1.0)
        ink[top : top + side, left : left + side] = brightness * np.asarray(glyph, np.float32)

    paper, color = rng.uniform(0, 80, size=3), rng.uniform(180, 255, size=3)
    share = (ink / 255)[:, :, None]
    noise = rng.normal(0, 12, size=(canvas_size, canvas_size, 1))
    canvas = paper[None, None] * (1 - share) + color[None, None] * share + noise
    return np.clip(np.round(canvas), 0, 255).astype(np.uint8)
