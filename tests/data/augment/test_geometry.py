"""Flips and affine warps: exact on known pictures, and within their ranges."""

import numpy as np

from mljax.data.augment.geometry import horizontal_flip, random_affine, warp_affine
from tests.data.augment.pictures import assert_same, photo


def test_flip_mirrors_left_and_right_with_its_probability():
    image, rng = photo(), np.random.default_rng(0)
    assert_same(horizontal_flip(image, rng, probability=1.0), np.asarray(image)[:, ::-1])
    assert horizontal_flip(image, rng, probability=0.0) is image
    flips = sum(horizontal_flip(image, rng) is not image for _ in range(2000))
    assert 0.46 < flips / 2000 < 0.54


def test_affine_warp_of_nothing_is_the_image():
    image = photo(13, 18)
    assert_same(warp_affine(image, 0.0, (0, 0), 1.0), np.asarray(image))


def test_affine_warp_shifts_by_whole_pixels_and_fills_with_black():
    image = photo(10, 12)
    expected = np.zeros((10, 12, 3), np.uint8)
    expected[3:, :-2] = np.asarray(image)[:-3, 2:]
    assert_same(warp_affine(image, 0.0, (-2, 3), 1.0), expected)


def test_affine_warp_turns_clockwise():
    image = photo(14, 14)
    assert_same(warp_affine(image, 90.0, (0, 0), 1.0), np.rot90(np.asarray(image), k=-1))


def test_affine_warp_doubles_about_the_center():
    image = photo(8, 8)
    expected = np.asarray(image)[2:6, 2:6].repeat(2, axis=0).repeat(2, axis=1)
    assert_same(warp_affine(image, 0.0, (0, 0), 2.0), expected)


def test_random_affine_stays_within_its_ranges(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mljax.data.augment.geometry.warp_affine",
        lambda image, *draws: drawn.append(draws) or image,
    )
    rng = np.random.default_rng(0)
    for _ in range(500):
        random_affine(photo(20, 40), rng, degrees=45.0, translate=0.15, scale=(0.85, 1.15))
    angles, shifts, scales = (np.array(values) for values in zip(*drawn, strict=True))
    assert 40 < angles.max() <= 45 and -45 <= angles.min() < -40
    assert (shifts.min(axis=0).tolist(), shifts.max(axis=0).tolist()) == ([-6, -3], [6, 3])
    assert 0.85 <= scales.min() < 0.87 and 1.13 < scales.max() <= 1.15
