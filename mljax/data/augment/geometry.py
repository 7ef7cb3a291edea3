"""Flips and affine maps."""

import math

import numpy as np
from PIL import Image


def horizontal_flip(
    image: Image.Image, rng: np.random.Generator, *, probability: float = 0.5
) -> Image.Image:
    """Mirrors left and right with the given probability."""
    if rng.random() < probability:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def random_affine(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    degrees: float,
    translate: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Image.Image:
    """Rotates, shifts and scales about the center, as torchvision's RandomAffine.

    KMCL trains on chest X-rays with degrees 45, translate 0.15, scale (0.85, 1.15).

    Args:
      image: an RGB image.
      rng: source of the angle, the shift and the scale, each uniform.
      degrees: largest angle, either way.
      translate: largest shift, as a share of the width and of the height.
      scale: smallest and largest scale.
    """
    angle = rng.uniform(-degrees, degrees)
    shift = tuple(round(rng.uniform(-translate, translate) * side) for side in image.size)
    return warp_affine(image, angle, (shift[0], shift[1]), rng.uniform(*scale))


def warp_affine(
    image: Image.Image, angle: float, shift: tuple[int, int], scale: float
) -> Image.Image:
    """Rotates clockwise by `angle` degrees about the center, scales, then shifts by (x, y) pixels.

    Nearest neighbor; what comes from outside is black.
    """
    # Pillow wants the way back: from a pixel of the result to one of the source.
    cosine, sine = (f(math.radians(angle)) / scale for f in (math.cos, math.sin))
    center_x, center_y = image.width / 2, image.height / 2
    x, y = center_x + shift[0], center_y + shift[1]
    matrix = (
        cosine,
        sine,
        center_x - cosine * x - sine * y,
        -sine,
        cosine,
        center_y + sine * x - cosine * y,
    )
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0
    )
