"""Crops against ML-GCN's tables, and torchvision's rule; colors."""

import numpy as np
import pytest
from PIL import Image

from mljax.data.augment.color import color_jitter, random_gray, shift_hue
from mljax.data.augment.crop import (
    crop_places,
    crop_sizes,
    multi_scale_crop,
    random_resized_crop,
)
from tests import golden

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def _size(text):
    return tuple(map(int, text.split("x")))


# The default of the original's class, of which 875 is a slip.
DEFAULT = {"default (1, 875, .75, .66)": (1, 875, 0.75, 0.66)}


@pytest.mark.parametrize("case", golden.names("mlgcn_crop", "train", "few", "default"))
def test_sizes_and_places_are_those_of_ml_gcn(case):
    hyper = golden.cases("mlgcn_crop")[case]["hyper"]
    for key, expected in golden.arrays("mlgcn_crop", case).items():
        kind, image, *crop = key.split("_")
        if kind == "pairs":
            scales, most = hyper["scales"], hyper["max_distort"]
            scales = DEFAULT[scales] if isinstance(scales, str) else tuple(scales)
            found = crop_sizes(_size(image), hyper["input_size"], scales=scales, max_distort=most)
        else:
            found = crop_places(_size(image), _size(crop[0]), more=hyper["more_fix_crop"])
        np.testing.assert_array_equal(found, expected)


def test_multi_scale_crops_have_one_of_the_sizes():
    rng = np.random.default_rng(0)
    sizes = {multi_scale_crop(PICTURE, rng, size=448).size for _ in range(300)}
    assert sizes == set(
        crop_sizes((40, 30), 448, scales=(1, 0.875, 0.75, 0.66, 0.5), max_distort=2)
    )


def test_random_resized_crops_keep_to_their_ranges_and_fill_them():
    rng, image = np.random.default_rng(0), Image.new("RGB", (200, 150))
    sizes = np.array(
        [random_resized_crop(image, rng, scale=(0.2, 0.5)).size for _ in range(500)], float
    )
    shares, ratios = sizes.prod(1) / (200 * 150), sizes[:, 0] / sizes[:, 1]
    assert 0.19 < shares.min() < 0.21
    assert 0.49 < shares.max() < 0.51
    assert 0.74 < ratios.min() < 0.77
    assert 1.31 < ratios.max() < 1.35
    np.testing.assert_allclose(np.log(ratios).mean(), 0, atol=0.03)


def test_a_picture_that_is_too_narrow_gives_the_largest_part_of_its_middle():
    narrow = Image.new("RGB", (100, 10))
    crop = random_resized_crop(narrow, np.random.default_rng(0), scale=(1.0, 1.0))
    assert crop.size == (13, 10)
    with pytest.raises(ValueError, match="scale must be 0 < low <= high, got"):
        random_resized_crop(narrow, np.random.default_rng(0), scale=(0.5, 0.1))


def test_a_hue_goes_round_once_a_turn():
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert shift_hue(red, 0.0).getpixel((0, 0)) == (255, 0, 0)
    green = shift_hue(red, 1 / 3).getpixel((0, 0))
    assert green[1] == 255
    assert max(green[0], green[2]) < 8
    blue = shift_hue(red, -1 / 3).getpixel((0, 0))
    assert blue[2] == 255
    assert max(blue[:2]) < 8


@pytest.mark.parametrize(("augment", "share"), [(color_jitter, 0.8), (random_gray, 0.2)])
def test_colors_change_as_often_as_they_should(augment, share):
    rng = np.random.default_rng(0)
    changed = [augment(PICTURE, rng) != PICTURE for _ in range(400)]
    np.testing.assert_allclose(np.mean(changed), share, atol=0.06)


def test_gray_pictures_have_three_equal_channels():
    pixels = np.asarray(random_gray(PICTURE, np.random.default_rng(0), probability=1.0))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
