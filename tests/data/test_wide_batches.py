"""Batches of images that are not square, and of images above a limit of pixels."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mljax.config import Preprocessing
from mljax.data import AUGMENTATIONS
from mljax.data.pipeline import eval_batches, train_batches
from mljax.data.records import Records
from tests.photos import save_photo

WIDE = Preprocessing(image_size=(16, 24))


@pytest.fixture
def records(tmp_path):
    paths = [str(save_photo(tmp_path / f"{n}.png", n, size=(50 + n, 40))) for n in range(4)]
    return Records(images=paths, labels=np.ones((4, 1), np.int8), class_names=("a",))


def test_images_are_height_by_width(records):
    with eval_batches(records, preprocessing=WIDE, batch_size=3) as batches:
        images = np.concatenate([batch["images"] for batch in batches])[:4]
    for image, path in zip(images, records.images, strict=True):
        with Image.open(path) as photo:
            expected = photo.resize((24, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_the_size(records, name):
    kwargs = {"random_affine": {"degrees": 30.0}, "multi_scale_crop": {"size": 16}}.get(name, {})

    def augment(image, rng):
        return AUGMENTATIONS[name](image, rng, **kwargs)

    # What cuts a part out comes before the resize.
    place = {"crop": augment} if name.endswith("crop") else {"augment": (augment,)}
    options = {"preprocessing": WIDE, "batch_size": 4, "seed": 0}
    with train_batches(records, **options, **place) as batches:
        for _ in range(5):
            assert next(batches)["images"].shape == (4, 16, 24, 3)


@pytest.mark.parametrize("make", [eval_batches, train_batches])
def test_an_image_above_the_limit_is_bad(records, make):
    seed = {"seed": 0} if make is train_batches else {}
    options = {"preprocessing": WIDE, "batch_size": 4, "bad_images": "skip", **seed}
    with make(records, max_pixels=51 * 40, **options) as batches:
        batch = next(batches)
    assert sorted(batch["index"][batch["valid"]]) == [0, 1]


def test_a_draft_is_a_smaller_picture_but_not_where_a_part_is_cut_out(tmp_path):
    path = str(save_photo(tmp_path / "a.jpg", 0, size=(200, 160)))
    records = Records(images=[path], labels=np.ones((1, 1), np.int8), class_names=("a",))
    sizes = []

    def look(image, rng):
        sizes.append(image.size)
        return image

    for draft, crop in ((False, None), (True, None), (True, look)):
        options = {"preprocessing": replace(WIDE, draft=draft), "batch_size": 1, "seed": 0}
        with train_batches(records, crop=crop, **options) as batches:
            first = next(batches)["images"]
        with eval_batches(records, preprocessing=options["preprocessing"], batch_size=1) as batches:
            (batch,) = batches
        # Cropped training images are whole; all others, evaluated ones too, are drafts.
        assert (first == batch["images"]).all() == (crop is None)
    assert set(sizes) == {(200, 160)}
