"""Cutout: a grey rectangle hides a part of the image."""

import numpy as np
from PIL import Image

_CUTOUT_COLOR = (125, 122, 113)


def cutout(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    factor: float = 0.5,
    probability: float = 1.0,
) -> Image.Image:
    """Covers a rectangle at a random place with a random color.

    DeVries and Taylor, https://arxiv.org/abs/1708.04552, in the form of Alibaba-MIIL/ASL
    helper_functions.py: the center is uniform over the image, and the rectangle is clipped.

    Args:
      image: an RGB image.
      rng: source of the center and the color.
      factor: side of the rectangle as a share of the image's, in [0, 1].
      probability: of covering anything, in [0, 1]; 1 in Alibaba-MIIL/ASL, 0.5 in AAM's code.
    """
    if probability < 1 and rng.random() >= probability:
        return image
    center = (int(rng.integers(image.height)), int(rng.integers(image.width)))
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    return draw_cutout(image, center, (red, green, blue), factor)


def draw_cutout(
    image: Image.Image, center: tuple[int, int], color: tuple[int, int, int], factor: float
) -> Image.Image:
    """Returns a copy with the rectangle of `cutout` around `center` (x, y).

    Parity: the original takes width for height. On an image that is not square the rectangle is
    as high as `factor` times the *width*, and its coordinates are clipped accordingly. The far
    edges are inside the rectangle.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"cutout factor: got {factor}, expected 0 to 1")
    x, y = center
    height, width = image.size
    half_height, half_width = int(factor * height + 0.5) // 2, int(factor * width + 0.5) // 2
    box = (
        min(max(x - half_width, 0), width),
        min(max(y - half_height, 0), height),
        min(max(x + half_width, 0), width) + 1,
        min(max(y + half_height, 0), height) + 1,
    )
    result = image.copy()
    result.paste(color, box)
    return result
