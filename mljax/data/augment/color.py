"""Random colors."""

import numpy as np
from PIL import Image, ImageEnhance

_ENHANCEMENTS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def color_jitter(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    probability: float = 0.8,
) -> Image.Image:
    """Changes brightness, contrast, saturation and hue in random order, with a probability.

    Source: torchvision's ColorJitter, with the arguments that SupCon trains with.

    Args:
      image: an RGB image.
      rng: source of the order and the strengths.
      brightness: the factor is uniform in [1 - brightness, 1 + brightness], from 0 on.
      contrast: likewise.
      saturation: likewise.
      hue: the shift is uniform in [-hue, hue], in turns; at most 0.5.
      probability: of any change.
    """
    if rng.random() >= probability:
        return image
    widths = (brightness, contrast, saturation)
    for number in rng.permutation(4):
        if number == 3:
            image = shift_hue(image, rng.uniform(-hue, hue))
        else:
            factor = rng.uniform(max(1 - widths[number], 0.0), 1 + widths[number])
            image = _ENHANCEMENTS[number](image).enhance(factor)
    return image


def shift_hue(image: Image.Image, turns: float) -> Image.Image:
    """Returns the image with every hue turned, in steps of 1/256 of a turn."""
    hsv = np.array(image.convert("HSV"))
    # Parity: torchvision counts 255 steps a turn.
    hsv[..., 0] += np.array(int(turns * 255)).astype(np.uint8)
    return Image.fromarray(hsv, "HSV").convert("RGB")


def random_gray(
    image: Image.Image, rng: np.random.Generator, *, probability: float = 0.2
) -> Image.Image:
    """Takes the color away with the given probability; torchvision's RandomGrayscale."""
    if rng.random() < probability:
        return image.convert("L").convert("RGB")
    return image
