"""Random changes of a training image, as the published systems make them.

Each is a function `(image, rng)` on an RGB Pillow image that returns a new image. What it draws
and what it does to the pixels are apart: `draw_cutout`, `apply_operation` and `warp_affine` are
pure, so a sequence of draws recorded elsewhere can be replayed to the last pixel.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

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
    "Sharpness": ImageEnhance.Sharpness,
    "Contrast": ImageEnhance.Contrast,
    "Color": ImageEnhance.Color,
    "Brightness": ImageEnhance.Brightness,
}
_GREY = (128, 128, 128)
_CUTOUT_COLOR = (125, 122, 113)


def cutout(image: Image.Image, rng: np.random.Generator, *, factor: float = 0.5) -> Image.Image:
    """Covers a rectangle at a random place with a random color.

    DeVries and Taylor, https://arxiv.org/abs/1708.04552, in the form of Alibaba-MIIL/ASL
    helper_functions.py: the center is uniform over the image, and the rectangle is clipped.

    Args:
      image: an RGB image.
      rng: source of the center and the color.
      factor: side of the rectangle as a share of the image's, in [0, 1].
    """
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
        min(max(x + half_width, 0), width),
        min(max(y + half_height, 0), height),
    )
    result = image.copy()
    ImageDraw.Draw(result).rectangle(box, fill=color)
    return result


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
            return _rotate(image, value)
        case "Cutout":
            return _square(image, int(value), center)
        case _:
            return _shift(image, name, value * sign)


def _shift(image: Image.Image, name: str, value: float) -> Image.Image:
    """Shears or translates; what comes from outside is grey."""
    matrix, resampling = {
        "ShearX": ((1, value, 0, 0, 1, 0), Image.Resampling.BICUBIC),
        "ShearY": ((1, 0, 0, value, 1, 0), Image.Resampling.BICUBIC),
        "TranslateX": ((1, 0, value * image.width, 0, 1, 0), Image.Resampling.NEAREST),
        "TranslateY": ((1, 0, 0, 0, 1, value * image.height), Image.Resampling.NEAREST),
    }[name]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resampling, fillcolor=_GREY)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    grey = Image.new("RGBA", turned.size, (*_GREY, 128))
    return Image.composite(turned, grey, turned).convert(image.mode)


def _square(image: Image.Image, side: int, center: tuple[int, int]) -> Image.Image:
    """Covers a square; the far edges are outside it."""
    x, y = center
    half = side // 2
    left, right = max(x - half, 0), min(x + half, image.width)
    top, bottom = max(y - half, 0), min(y + half, image.height)
    result = image.copy()
    result.paste(_CUTOUT_COLOR, (left, top, right, bottom))
    return result


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
