"""Several views of an image in a batch."""

from functools import partial

import numpy as np
import pytest

from mljax.config.schema import Preprocessing
from mljax.data.augment.color import color_jitter
from mljax.data.augment.crop import random_resized_crop
from mljax.data.pipeline import train_batches
from mljax.data.records import Records

PREPROCESSING = Preprocessing(image_size=8)


def _draws(image, rng, seen):
    seen.append(rng.random())
    return image


def _batch(**kwargs):
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    records = Records(images=images, labels=np.eye(6, dtype=np.int8), class_names=tuple("abcdef"))
    with train_batches(
        records, preprocessing=PREPROCESSING, batch_size=6, seed=1, **kwargs
    ) as batches:
        return next(batches)


def test_views_have_an_axis_of_their_own_and_differ():
    crop = partial(random_resized_crop, scale=(0.2, 1.0))
    batch = _batch(crop=crop, augment=(partial(color_jitter, probability=1.0),), views=2)
    assert batch["images"].shape == (6, 2, 8, 8, 3)
    assert batch["labels"].shape == (6, 6)
    first, second = batch["images"][:, 0], batch["images"][:, 1]
    assert (first != second).reshape(6, -1).any(1).all()
    again = _batch(crop=crop, augment=(partial(color_jitter, probability=1.0),), views=2)
    np.testing.assert_array_equal(batch["images"], again["images"])


def test_views_and_equal_augmentations_draw_different_numbers():
    first, second = [], []
    _batch(augment=(partial(_draws, seen=first), partial(_draws, seen=second)), views=2)
    # At least: batches are read ahead.
    assert len(first) >= 12
    assert len({*first, *second}) == len(first) + len(second)


def test_without_crop_and_augmentation_views_are_the_image():
    batch = _batch(views=3)
    one = _batch()
    assert one["images"].shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(batch["images"], np.stack([one["images"]] * 3, axis=1))
    with pytest.raises(ValueError, match="views: got 0"):
        _batch(views=0)
