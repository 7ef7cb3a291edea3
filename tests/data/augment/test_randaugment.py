"""RandAugment: exact replays of the published package, and its draws."""

import random
import sys

import numpy as np
import pytest
from PIL import Image

from mljax.data.augment.randaugment import OPERATIONS, apply_operation, magnitude, randaugment
from tests import golden
from tests.data.augment.pictures import assert_same, photo

SIGNED = set(OPERATIONS) - {
    *("Invert", "AutoContrast", "Equalize", "Posterize", "Solarize", "Rotate", "Cutout"),
}


TABLE = golden.cases("aam_aug")["magnitudes"]["hyper"]


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
        assert_same(result, arrays[key])


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"Cutout"}))
def test_operation_equals_package_on_another_image(name):
    arrays = golden.arrays("aam_aug", "ops")
    image = Image.fromarray(arrays["image"])
    keys = [key for key in arrays if key.startswith(name + "_")]
    assert len(keys) == (6 if name in SIGNED else 3)
    for key in keys:
        _, strength, sign = key.split("_")
        result = apply_operation(image, name, int(strength), sign=1 if sign == "p" else -1)
        assert_same(result, arrays[key])


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
    assert_same(image, arrays[f"seed{seed}"])


def test_rotation_equals_the_package_route_over_a_transparent_image():
    image = photo(23, 31)
    for strength in range(10):
        turned = image.convert("RGBA").rotate(magnitude("Rotate", strength))
        grey = Image.new("RGBA", image.size, (128, 128, 128, 128))
        expected = Image.composite(turned, grey, turned).convert("RGB")
        assert_same(apply_operation(image, "Rotate", strength), np.asarray(expected))


def test_rotation_keeps_pixels_of_a_transparent_color():
    image = photo(20, 20)
    bare = apply_operation(image, "Rotate", 3)
    image.info["transparency"] = image.getpixel((10, 10))
    assert_same(apply_operation(image, "Rotate", 3), np.asarray(bare))


def test_operations_and_magnitudes_equal_the_package_table():
    assert list(OPERATIONS) == TABLE["ops"]
    mine = {name: [magnitude(name, strength) for strength in range(10)] for name in OPERATIONS}
    assert mine == TABLE["table"]
    assert (len(OPERATIONS) * 9) ** 2 == TABLE["n_policies"]


def test_randaugment_leaves_a_quarter_of_the_images_alone():
    image, rng = photo(), np.random.default_rng(0)
    unchanged = sum(randaugment(image, rng) is image for _ in range(2000))
    assert 0.22 < unchanged / 2000 < 0.28


def test_randaugment_draws_every_operation_and_strength(monkeypatch):
    seen = set()

    def record(image, name, strength, *, sign, center):
        assert sign in (-1, 1)
        assert 0 <= center[0] < image.width and 0 <= center[1] < image.height
        seen.add((name, strength, sign))
        return image

    # The function `randaugment` of the package hides its module.
    module = sys.modules["mljax.data.augment.randaugment"]
    monkeypatch.setattr(module, "apply_operation", record)
    rng = np.random.default_rng(0)
    for _ in range(6000):
        randaugment(photo(6, 4), rng)
    expected = {
        (name, strength, sign)
        for name in OPERATIONS
        for strength in range(1, 10)
        for sign in (-1, 1)
    }
    assert seen == expected
