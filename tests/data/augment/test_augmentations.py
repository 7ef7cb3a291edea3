"""What holds for every augmentation."""

import numpy as np
import pytest

from mljax.data.augment.cutout import cutout, draw_cutout
from mljax.data.augment.geometry import horizontal_flip, random_affine
from mljax.data.augment.randaugment import OPERATIONS, apply_operation, randaugment
from tests.data.augment.pictures import photo


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
    image = photo()
    before = np.asarray(image).copy()
    result = augment(image, np.random.default_rng(1))
    assert (result.size, result.mode) == (image.size, "RGB")
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("augment", [cutout, randaugment, horizontal_flip])
def test_augmentation_is_a_function_of_the_generator(augment):
    image = photo()
    first, second = (
        [np.asarray(augment(image, rng)) for _ in range(20)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    np.testing.assert_array_equal(first, second)
    assert len({array.tobytes() for array in first}) > 1


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
        call(photo())
