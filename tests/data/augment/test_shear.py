"""Shears: the bits of Pillow's bicubic affine transform, whatever the slope and the size."""

import platform

import numpy as np
import pytest
from PIL import Image

from mljax.data.augment.randaugment import magnitude
from mljax.data.augment.shear import shear_x, shear_y
from tests.data.augment.pictures import assert_same, photo

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="elsewhere Pillow's compiler may round a product and its sum once",
)

MATRICES = {
    shear_x: lambda slope: (1, slope, 0, 0, 1, 0),
    shear_y: lambda slope: (1, 0, 0, slope, 1, 0),
}
MAGNITUDES = [magnitude("ShearX", strength) for strength in range(10)]
# Of one pixel, of one row or column, odd, not square.
SMALL = [(1, 1), (1, 9), (9, 1), (2, 3), (4, 4), (31, 70), (70, 31)]
LARGE = [(230, 150), (150, 230)]


def _by_pillow(image, shear, slope):
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        MATRICES[shear](slope),
        Image.Resampling.BICUBIC,
        fillcolor=(128, 128, 128),
    )


def _assert_equals_pillow(image, shear, slope):
    assert_same(shear(image, slope), np.asarray(_by_pillow(image, shear, slope)))


@pytest.mark.parametrize("shear", MATRICES)
@pytest.mark.parametrize("size", SMALL)
def test_equals_pillow_at_every_magnitude(shear, size):
    image = photo(*size)
    extreme = Image.fromarray(np.where(np.asarray(image) < 128, 0, 255).astype(np.uint8))
    for magnitude_ in MAGNITUDES:
        for slope in (magnitude_, -magnitude_):
            _assert_equals_pillow(image, shear, slope)
            _assert_equals_pillow(extreme, shear, slope)


@pytest.mark.parametrize("shear", MATRICES)
@pytest.mark.parametrize("size", LARGE)
def test_equals_pillow_where_rows_come_in_several_blocks(shear, size):
    for slope in (0.3, -0.3, MAGNITUDES[1], -MAGNITUDES[8]):
        _assert_equals_pillow(photo(*size), shear, slope)


@pytest.mark.parametrize("shear", MATRICES)
def test_equals_pillow_at_any_slope(shear):
    draws = np.random.default_rng(0)
    for slope in [0.5, -0.5, 1.0, -1.0, 1 / 3, 2.5, -7.0, 1e-17, *draws.normal(size=40)]:
        _assert_equals_pillow(photo(24, 33), shear, float(slope))


def test_image_is_left_alone():
    image = photo(12, 15)
    before = image.tobytes()
    for shear in MATRICES:
        assert shear(image, 0.2).size == image.size
    assert image.tobytes() == before
