"""The mean with the neighbors: the bits of Pillow's filter."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from mljax.data.augment.randaugment import apply_operation, magnitude
from mljax.data.augment.smooth import smooth
from tests.data.augment.pictures import assert_same, photo

SIZES = [(1, 1), (1, 6), (6, 1), (2, 2), (2, 7), (3, 3), (3, 8), (8, 3), (61, 40), (120, 230)]


@pytest.mark.parametrize("size", SIZES)
def test_equals_pillow(size):
    image = photo(*size)
    extreme = Image.fromarray(np.where(np.asarray(image) < 128, 0, 255).astype(np.uint8))
    for picture in (image, extreme):
        assert_same(smooth(picture), np.asarray(picture.filter(ImageFilter.SMOOTH)))


def test_every_sum_is_rounded_as_pillow_rounds_it():
    # A pixel and its neighbors in a 3 x 3 picture, so that each of the sums appears.
    for total in range(13 * 255 + 1):
        center = max(0, -(-(total - 8 * 255) // 5))
        rest = total - 5 * center
        around = [rest // 8 + (place < rest % 8) for place in range(8)]
        pixels = np.array([*around[:4], center, *around[4:]], np.uint8).reshape(3, 3, 1)
        image = Image.fromarray(pixels.repeat(3, axis=2))
        assert_same(smooth(image), np.asarray(image.filter(ImageFilter.SMOOTH)))


def test_sharpness_equals_pillow_at_every_magnitude():
    image = photo(17, 22)
    for strength in range(10):
        for sign in (1, -1):
            factor = 1 + magnitude("Sharpness", strength) * sign
            expected = ImageEnhance.Sharpness(image).enhance(factor)
            result = apply_operation(image, "Sharpness", strength, sign=sign)
            assert_same(result, np.asarray(expected))
