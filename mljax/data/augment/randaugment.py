"""RandAugment: random operations of random strength."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mljax.data.augment.cutout import _CUTOUT_COLOR
from mljax.data.augment.shear import shear_x, shear_y
from mljax.data.augment.smooth import smooth

# The operations of PyPI's randaugment 1.0.2, in its order.
OPERATIONS = (
    "Invert",
    "Cutout",
    "Sharpness",
    "AutoContrast",
    "Posterize",
    "ShearX",
    "TranslateX",
    "TranslateY",
    "ShearY",
    "Rotate",
    "Equalize",
    "Contrast",
    "Color",
    "Solarize",
    "Brightness",
)


# A magnitude is this share of the way from the first number to the second.
_STRONGEST = 9


_RANGES = {
    "Cutout": (0, 20),  # side, pixels
    "Sharpness": (0, 0.9),  # distance of the factor from 1, as in the other enhancements
    "Posterize": (8, 4),  # bits that stay
    "ShearX": (0, 0.3),
    "TranslateX": (0, 150 / 331),  # share of the width
    "TranslateY": (0, 150 / 331),
    "ShearY": (0, 0.3),
    "Rotate": (0, 30),  # degrees
    "Contrast": (0, 0.9),
    "Color": (0, 0.9),
    "Solarize": (256, 0),  # lowest value that is inverted
    "Brightness": (0, 0.9),
}


_ROUNDED = ("Cutout", "Posterize")


_ENHANCEMENTS = {
    "Contrast": ImageEnhance.Contrast,
    "Color": ImageEnhance.Color,
    "Brightness": ImageEnhance.Brightness,
}


_GREY = (128, 128, 128)


def randaugment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Applies two random operations of random strength, each with probability 1/2.

    The variant of RandAugment (https://arxiv.org/abs/1909.13719) in PyPI's randaugment 1.0.2,
    which ASL, CSL, ML-Decoder, KMCL, Query2Label, MulCon and AAM train with. The operations are
    drawn from `OPERATIONS` and the strengths from 1 to 9, independently, so that a quarter of
    the images stay as they are.

    Args:
      image: an RGB image.
      rng: source of the operations, strengths, signs and centers.
    """
    for _ in range(2):
        name = OPERATIONS[rng.integers(len(OPERATIONS))]
        strength = int(rng.integers(1, _STRONGEST + 1))
        if rng.random() < 0.5:
            sign = 1 if rng.random() < 0.5 else -1
            center = (int(rng.integers(image.width)), int(rng.integers(image.height)))
            image = apply_operation(image, name, strength, sign=sign, center=center)
    return image


def magnitude(name: str, strength: int) -> float:
    """Returns what `strength` (0 to 9) means for an operation; 0 for those without a magnitude."""
    if name not in OPERATIONS:
        raise ValueError(f"operation: got {name!r}, expected one of {', '.join(OPERATIONS)}")
    if not 0 <= strength <= _STRONGEST:
        raise ValueError(f"strength: got {strength}, expected 0 to {_STRONGEST}")
    first, last = _RANGES.get(name, (0, 0))
    value = float(np.linspace(first, last, _STRONGEST + 1)[strength])
    return float(np.round(value)) if name in _ROUNDED else value


def apply_operation(
    image: Image.Image,
    name: str,
    strength: int,
    *,
    sign: int = 1,
    center: tuple[int, int] = (0, 0),
) -> Image.Image:
    """Returns the result of one operation of `randaugment` on an RGB image.

    Differs from the package: `Rotate` leaves pixels of a color that the file calls transparent.

    Args:
      image: the image, which is left alone.
      name: one of `OPERATIONS`.
      strength: 0 to 9.
      sign: 1 or -1; the direction of shear and translation and of the four enhancements. Parity:
        `Rotate` ignores it and always turns counterclockwise.
      center: (x, y) of the square of `Cutout`.

    Raises:
      ValueError: if there is no such operation or strength.
    """
    value = magnitude(name, strength)
    if name in _ENHANCEMENTS:
        return _ENHANCEMENTS[name](image).enhance(1 + value * sign)
    match name:
        case "Sharpness":
            return Image.blend(smooth(image), image, 1 + value * sign)
        case "Invert":
            return ImageOps.invert(image)
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Posterize":
            return ImageOps.posterize(image, int(value))
        case "Solarize":
            return ImageOps.solarize(image, value)  # pyright: ignore[reportArgumentType]
        case "Rotate":
            return image.rotate(value, fillcolor=_GREY)
        case "Cutout":
            return _square(image, int(value), center)
        case "ShearX":
            return shear_x(image, value * sign)
        case "ShearY":
            return shear_y(image, value * sign)
        case "TranslateX":
            return _translate(image, value * sign * image.width, 0)
        case _:
            return _translate(image, 0, value * sign * image.height)


def _translate(image: Image.Image, x: float, y: float) -> Image.Image:
    """Moves to the left and up; what comes from outside is grey."""
    matrix = (1, 0, x, 0, 1, y)
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=_GREY
    )


def _square(image: Image.Image, side: int, center: tuple[int, int]) -> Image.Image:
    """Covers a square; the far edges are outside it."""
    x, y = center
    half = side // 2
    left, right = max(x - half, 0), min(x + half, image.width)
    top, bottom = max(y - half, 0), min(y + half, image.height)
    result = image.copy()
    result.paste(_CUTOUT_COLOR, (left, top, right, bottom))
    return result
