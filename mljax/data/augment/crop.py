"""Random crops, which stand before the resize (`data.crop`), so that they see the whole picture."""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

# An attempt that does not fit into the picture is drawn again this often.
_ATTEMPTS = 10


def random_resized_crop(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Image.Image:
    """Cuts out a part of random area and aspect; the pipeline resizes it.

    Source: torchvision's RandomResizedCrop. SupCon trains with scale (0.2, 1), MulCon's stage one
    with (0.875, 1).

    Args:
      image: the whole picture.
      rng: source of area, aspect and place.
      scale: least and largest area, as a share of the picture's, above 0.
      ratio: least and largest width / height, above 0; uniform in the logarithm.

    Raises:
      ValueError: for numbers that are not positive, or not in order.
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(
                f"random_resized_crop: {name} must be 0 < low <= high, got {low, high}"
            )
    width, height = image.size
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return image.crop((left, top, left + w, top + h))
    # The largest part in the middle whose aspect is allowed.
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h))


def multi_scale_crop(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    size: int,
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66, 0.5),
    max_distort: int = 2,
    more_places: bool = True,
) -> Image.Image:
    """Cuts out a part of one of a few sizes at one of a few places; the pipeline resizes it.

    Source: `MultiScaleCrop` in megvii-research/ML-GCN `util.py`, with the scales that it trains
    with.

    Args:
      image: the whole picture.
      rng: source of size and place.
      size: side of the network's input; sides within two pixels of it become it.
      scales: sides of the parts, as shares of the picture's shorter side, largest first.
      max_distort: how many places in `scales` width and height may be apart.
      more_places: 13 places in place of 5.
    """
    sizes = crop_sizes(image.size, size, scales=scales, max_distort=max_distort)
    w, h = sizes[rng.integers(len(sizes))]
    places = crop_places(image.size, (w, h), more=more_places)
    left, top = places[rng.integers(len(places))]
    return image.crop((left, top, left + w, top + h))


@functools.lru_cache(maxsize=256)
def crop_sizes(
    image_size: tuple[int, int], size: int, *, scales: Sequence[float], max_distort: int
) -> tuple[tuple[int, int], ...]:
    """Returns the (width, height) that `multi_scale_crop` draws from."""
    sides = [int(min(image_size) * scale) for scale in scales]
    # Parity: so a side may be up to two pixels longer than the picture; Pillow pads with black.
    sides = [size if abs(side - size) < 3 else side for side in sides]
    places = range(len(sides))
    pairs = itertools.product(places, places)
    return tuple((sides[j], sides[i]) for i, j in pairs if abs(i - j) <= max_distort)


def crop_places(
    image_size: tuple[int, int], crop_size: tuple[int, int], *, more: bool = True
) -> tuple[tuple[int, int], ...]:
    """Returns the (left, top) that `multi_scale_crop` draws from."""
    x, y = ((image_size[axis] - crop_size[axis]) // 4 for axis in (0, 1))
    steps = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
    if more:
        steps += [(0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
    return tuple((i * x, j * y) for i, j in steps)
