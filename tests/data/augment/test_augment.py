"""Augmentation: pixel-exact replays of the published code's draws, and the draws themselves."""

import random

import numpy as np
import pytest
from PIL import Image

from mljax.data.augment.cutout import cutout, draw_cutout
from mljax.data.augment.geometry import horizontal_flip, random_affine, warp_affine
from mljax.data.augment.randaugment import OPERATIONS, apply_operation, magnitude, randaugment
from tests import golden

SIGNED = set(OPERATIONS) - {
    *("Invert", "AutoContrast", "Equalize", "Posterize", "Solarize", "Rotate", "Cutout"),
}
TABLE = golden.cases("aam_aug")["magnitudes"]["hyper"]


def _photo(height=20, width=20, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _same(image, expected):
    np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_package_at_every_recorded_magnitude_and_sign(name):
    arrays = golden.arrays("randaugment", "ops_smooth")
    image, draws = Image.fromarray(arrays["image"]), np.random.RandomState(3)
    center = int(draws.randint(20)), int(draws.randint(16))
    keys = [key for key in arrays if key.startswith(name + "/")]
    assert len(keys) == (6 if name in SIGNED else 3)
    for key in keys:
        strength, sign = map(int, key.split("/")[1:])
        result = apply_operation(image, name, strength, sign=sign, center=center)
        _same(result, arrays[key])


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"Cutout"}))
def test_operation_equals_package_on_another_image(name):
    arrays = golden.arrays("aam_aug", "ops")
    image = Image.fromarray(arrays["image"])
    keys = [key for key in arrays if key.startswith(name + "_")]
    assert len(keys) == (6 if name in SIGNED else 3)
    for key in keys:
        _, strength, sign = key.split("_")
        result = apply_operation(image, name, int(strength), sign=1 if sign == "p" else -1)
        _same(result, arrays[key])


@pytest.mark.parametrize("seed", range(8))
def test_two_operations_in_sequence_equal_a_whole_call_of_the_package(seed):
    arrays = golden.arrays("randaugment", "full_smooth")
    image, numbers, centers = (
        Image.fromarray(arrays["image"]),
        random.Random(seed),
        np.random.RandomState(seed),
    )
    choices = [(name, strength) for name in OPERATIONS for strength in range(1, 10)]
    policy = numbers.randint(0, len(choices) ** 2 - 1)
    for name, strength in (choices[policy // len(choices)], choices[policy % len(choices)]):
        if numbers.random() < 0.5:
            sign = numbers.choice([-1, 1]) if name in SIGNED else 1
            center = (0, 0)
            if name == "Cutout":
                center = int(centers.randint(image.width)), int(centers.randint(image.height))
            image = apply_operation(image, name, strength, sign=sign, center=center)
    _same(image, arrays[f"seed{seed}"])


def test_operations_and_magnitudes_equal_the_package_table():
    assert list(OPERATIONS) == TABLE["ops"]
    mine = {name: [magnitude(name, strength) for strength in range(10)] for name in OPERATIONS}
    assert mine == TABLE["table"]
    assert (len(OPERATIONS) * 9) ** 2 == TABLE["n_policies"]


@pytest.mark.parametrize("case", golden.names("asl_data", "cutout"))
def test_cutout_equals_reference(case):
    arrays, hyper = golden.arrays("asl_data", case), golden.cases("asl_data")[case]["hyper"]
    image = Image.fromarray(arrays["image"])
    places = np.random.RandomState(hyper["numpy_legacy_seed"])
    colors = random.Random(hyper["python_seed"])
    y, x = (int(places.randint(side)) for side in image.size)
    color = tuple(colors.randint(0, 255) for _ in range(3))
    _same(draw_cutout(image, (x, y), color, hyper["cutout_factor"]), arrays["out"])


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
    _same(result, arrays[f"out{number}"])


def test_randaugment_leaves_a_quarter_of_the_images_alone():
    image, rng = _photo(), np.random.default_rng(0)
    unchanged = sum(randaugment(image, rng) is image for _ in range(2000))
    assert 0.22 < unchanged / 2000 < 0.28


def test_randaugment_draws_every_operation_and_strength(monkeypatch):
    seen = set()

    def record(image, name, strength, *, sign, center):
        assert sign in (-1, 1)
        assert 0 <= center[0] < image.width and 0 <= center[1] < image.height
        seen.add((name, strength, sign))
        return image

    monkeypatch.setattr("mljax.data.augment.randaugment.apply_operation", record)
    rng = np.random.default_rng(0)
    for _ in range(6000):
        randaugment(_photo(6, 4), rng)
    expected = {
        (name, strength, sign)
        for name in OPERATIONS
        for strength in range(1, 10)
        for sign in (-1, 1)
    }
    assert seen == expected


@pytest.mark.parametrize(
    "augment",
    [
        cutout,
        randaugment,
        lambda image, rng: horizontal_flip(image, rng, probability=1.0),
        lambda image, rng: random_affine(image, rng, degrees=45.0, translate=0.2, scale=(0.8, 1.2)),
        *(lambda image, rng, name=name: apply_operation(image, name, 9) for name in OPERATIONS),
    ],
)
def test_augmentation_keeps_its_input_and_its_size(augment):
    image = _photo()
    before = np.asarray(image).copy()
    result = augment(image, np.random.default_rng(1))
    assert (result.size, result.mode) == (image.size, "RGB")
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("augment", [cutout, randaugment, horizontal_flip])
def test_augmentation_is_a_function_of_the_generator(augment):
    image = _photo()
    first, second = (
        [np.asarray(augment(image, rng)) for _ in range(20)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    np.testing.assert_array_equal(first, second)
    assert len({array.tobytes() for array in first}) > 1


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


def test_flip_mirrors_left_and_right_with_its_probability():
    image, rng = _photo(), np.random.default_rng(0)
    _same(horizontal_flip(image, rng, probability=1.0), np.asarray(image)[:, ::-1])
    assert horizontal_flip(image, rng, probability=0.0) is image
    flips = sum(horizontal_flip(image, rng) is not image for _ in range(2000))
    assert 0.46 < flips / 2000 < 0.54


def test_affine_warp_of_nothing_is_the_image():
    image = _photo(13, 18)
    _same(warp_affine(image, 0.0, (0, 0), 1.0), np.asarray(image))


def test_affine_warp_shifts_by_whole_pixels_and_fills_with_black():
    image = _photo(10, 12)
    expected = np.zeros((10, 12, 3), np.uint8)
    expected[3:, :-2] = np.asarray(image)[:-3, 2:]
    _same(warp_affine(image, 0.0, (-2, 3), 1.0), expected)


def test_affine_warp_turns_clockwise():
    image = _photo(14, 14)
    _same(warp_affine(image, 90.0, (0, 0), 1.0), np.rot90(np.asarray(image), k=-1))


def test_affine_warp_doubles_about_the_center():
    image = _photo(8, 8)
    expected = np.asarray(image)[2:6, 2:6].repeat(2, axis=0).repeat(2, axis=1)
    _same(warp_affine(image, 0.0, (0, 0), 2.0), expected)


def test_random_affine_stays_within_its_ranges(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mljax.data.augment.geometry.warp_affine",
        lambda image, *draws: drawn.append(draws) or image,
    )
    rng = np.random.default_rng(0)
    for _ in range(500):
        random_affine(_photo(20, 40), rng, degrees=45.0, translate=0.15, scale=(0.85, 1.15))
    angles, shifts, scales = (np.array(values) for values in zip(*drawn, strict=True))
    assert 40 < angles.max() <= 45 and -45 <= angles.min() < -40
    assert (shifts.min(axis=0).tolist(), shifts.max(axis=0).tolist()) == ([-6, -3], [6, 3])
    assert 0.85 <= scales.min() < 0.87 and 1.13 < scales.max() <= 1.15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda image: apply_operation(image, "Blur", 1), "operation: got 'Blur'"),
        (lambda image: apply_operation(image, "Rotate", 10), "strength: got 10, expected 0 to 9"),
        (lambda image: draw_cutout(image, (1, 1), (0, 0, 0), 1.5), "factor: got 1.5"),
    ],
)
def test_what_does_not_exist_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(_photo())
