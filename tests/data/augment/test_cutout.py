"""Cutout: exact replays of the published code's draws, and the draws themselves."""

import random

import numpy as np
import pytest
from PIL import Image

from mljax.data.augment.cutout import cutout, draw_cutout
from tests import golden
from tests.data.augment.pictures import assert_same


@pytest.mark.parametrize("case", golden.names("asl_data", "cutout"))
def test_cutout_equals_reference(case):
    arrays, hyper = golden.arrays("asl_data", case), golden.cases("asl_data")[case]["hyper"]
    image = Image.fromarray(arrays["image"])
    places = np.random.RandomState(hyper["numpy_legacy_seed"])
    colors = random.Random(hyper["python_seed"])
    y, x = (int(places.randint(side)) for side in image.size)
    color = tuple(colors.randint(0, 255) for _ in range(3))
    assert_same(draw_cutout(image, (x, y), color, hyper["cutout_factor"]), arrays["out"])


@pytest.mark.parametrize("number", range(4))
def test_cutout_equals_reference_with_recorded_draws(number):
    arrays = golden.arrays("aam_aug", "cutout")
    draws = golden.cases("aam_aug")["cutout"]["hyper"]["cases"][number]
    result = draw_cutout(
        Image.fromarray(arrays[f"in{number}"]),
        (draws["x_c"], draws["y_c"]),
        tuple(draws["colour"]),
        draws["factor"],
    )
    assert_same(result, arrays[f"out{number}"])


def test_cutout_covers_half_the_side_where_it_fits():
    covered = draw_cutout(Image.new("RGB", (20, 20)), (10, 10), (255, 255, 255), 0.5)
    rows, columns = np.nonzero(np.asarray(covered)[:, :, 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 15, 5, 15)


def test_cutout_draws_places_and_colors_uniformly():
    image, rng = Image.new("RGB", (8, 8)), np.random.default_rng(0)
    pixels = np.stack([np.asarray(cutout(image, rng, factor=0.0)) for _ in range(3000)])
    colors = pixels.max(axis=(1, 2))
    places = (pixels.max(axis=3) > 0).mean(axis=0)
    assert 120 < colors.mean() < 135 and colors.max() == 255
    np.testing.assert_allclose(places, 1 / 64, atol=0.01)


def test_cutout_with_a_probability_leaves_the_other_images_alone():
    image, rng = Image.new("RGB", (8, 8)), np.random.default_rng(0)
    covered = [cutout(image, rng, probability=0.25) is not image for _ in range(2000)]
    assert 0.22 < np.mean(covered) < 0.28
