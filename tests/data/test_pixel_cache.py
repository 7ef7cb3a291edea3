"""Resized images that are kept: equal batches, never out of date, whole or not there."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mljax.config import Preprocessing, override, part
from mljax.data import examples
from mljax.data.augment.crop import random_resized_crop
from mljax.data.augment.cutout import cutout
from mljax.data.augment.randaugment import randaugment
from mljax.data.pipeline import eval_batches, train_batches
from mljax.data.records import Records
from mljax.training.preparation import prepare
from tests import layouts
from tests.photos import save_photo
from tests.small_configs import config

PREPROCESSING = Preprocessing(image_size=(16, 24))


@pytest.fixture
def records(tmp_path):
    paths = [str(save_photo(tmp_path / f"{n}.jpg", n, size=(50 + n, 40))) for n in range(4)]
    return Records(images=paths, labels=np.ones((4, 1), np.int8), class_names=("a",))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "kept"


def _evaluated(records, cache=None, preprocessing=PREPROCESSING, **kwargs):
    cache = cache and str(cache)
    options = {"preprocessing": preprocessing, "batch_size": 4, "cache": cache} | kwargs
    with eval_batches(records, **options) as batches:
        return next(batches)["images"]


def _files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def _refuse_to_decode(monkeypatch):
    def read_image(source, **_):
        raise AssertionError(f"{source} was decoded again")

    monkeypatch.setattr(examples, "read_image", read_image)


@pytest.mark.parametrize("views", [1, 2])
def test_batches_are_equal_and_files_are_decoded_once(records, cache, monkeypatch, views):
    options = {"preprocessing": PREPROCESSING, "batch_size": 4, "seed": 0, "views": views}
    options["augment"] = (partial(cutout, factor=0.5), randaugment)

    def trained(**kwargs):
        with train_batches(records, **options, **kwargs) as batches:
            return [next(batches)["images"] for _ in range(3)]

    expected = trained()
    np.testing.assert_array_equal(trained(cache=str(cache)), expected)
    evaluated = _evaluated(records)
    _refuse_to_decode(monkeypatch)
    np.testing.assert_array_equal(trained(cache=str(cache)), expected)
    np.testing.assert_array_equal(_evaluated(records, cache), evaluated)


def test_images_in_memory_are_kept_by_their_content(records, cache, monkeypatch):
    contents = [Path(path).read_bytes() for path in records.images]
    in_memory = replace(records, images=contents)
    expected = _evaluated(in_memory, cache)
    _refuse_to_decode(monkeypatch)
    np.testing.assert_array_equal(_evaluated(in_memory, cache), expected)


def test_another_file_of_the_same_name_is_read(records, cache):
    _evaluated(records, cache)
    save_photo(Path(records.images[0]), 7, size=(60, 40))
    np.testing.assert_array_equal(_evaluated(records, cache), _evaluated(records))


@pytest.mark.parametrize(
    "other", [{"image_size": (24, 16)}, {"resize": "bicubic"}, {"draft": True}, {"image_size": 8}]
)
def test_another_preprocessing_is_kept_apart(records, cache, other):
    _evaluated(records, cache)
    asked = replace(PREPROCESSING, **other)
    np.testing.assert_array_equal(
        _evaluated(records, cache, asked), _evaluated(records, preprocessing=asked)
    )
    assert len(_files(cache)) == 8


def test_the_limit_of_pixels_holds_for_what_was_kept_under_a_larger_one(records, cache):
    _evaluated(records, cache)
    with pytest.raises(ValueError, match="3.jpg.*exceed the limit"):
        _evaluated(records, cache, max_pixels=52 * 40)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[:-1] + bytes([1 ^ whole[-1]]),
    ],
)
def test_a_damaged_file_is_made_again(records, cache, damage):
    expected = _evaluated(records, cache)
    path = _files(cache)[2]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    np.testing.assert_array_equal(_evaluated(records, cache), expected)
    assert path.read_bytes() == whole


def test_what_is_cropped_is_not_kept(records, cache):
    crop = partial(random_resized_crop, scale=(0.2, 0.5))
    options = {"preprocessing": PREPROCESSING, "batch_size": 4, "seed": 0, "crop": crop}
    _evaluated(records, cache)
    found = []
    for folder in (None, str(cache)):
        with train_batches(records, cache=folder, **options) as batches:
            found.append(next(batches)["images"])
    np.testing.assert_array_equal(*found)
    assert len(_files(cache)) == 4


def test_a_note_on_an_image_comes_each_time(tmp_path, cache):
    path = str(tmp_path / "deep.png")
    Image.fromarray(np.full((40, 50), 4000, np.uint16)).save(path)
    records = Records(images=[path], labels=np.ones((1, 1), np.int8), class_names=("a",))
    for _ in range(2):
        with pytest.warns(UserWarning, match="deep.png.*12 bits"):
            _evaluated(records, cache)


def test_a_missing_image_is_named(records, cache):
    os.unlink(records.images[1])
    with pytest.raises(ValueError, match="1.jpg: cannot be read"):
        _evaluated(records, cache)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_folder_that_cannot_be_written_is_named(records, cache, num_workers):
    cache.write_text("")
    with pytest.raises(OSError, match="kept: no resized image of 1152 bytes.*data.cache"):
        _evaluated(records, cache, num_workers=num_workers)


def test_nothing_half_written_stays(records, cache, monkeypatch):
    def replace_file(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace_file)
    with pytest.raises(OSError, match="No space left on device"):
        _evaluated(records, cache)
    assert not _files(cache)


def test_a_run_trains_on_what_its_evaluation_kept(tmp_path, cache, monkeypatch):
    layouts.csv(tmp_path / "photos")
    reader = part("csv", root=str(tmp_path / "photos"))
    training = prepare(override(config(reader=reader), [f"data.cache={cache}"]))
    with training.eval_batches() as batches:
        list(batches)
    assert len(_files(cache)) == layouts.COUNT
    _refuse_to_decode(monkeypatch)
    with training.train_batches(start_step=0) as batches:
        assert next(batches)["valid"].all()


def test_metadata_is_left_out_from_the_first_epoch_on(tmp_path, cache):
    exif = Image.Exif()
    exif[274] = 6
    path = str(tmp_path / "turned.jpg")
    with Image.open(save_photo(tmp_path / "a.png", 0)) as photo:
        photo.save(path, exif=exif)
    records = Records(images=[path], labels=np.ones((1, 1), np.int8), class_names=("a",))
    seen = []

    def look(image, rng):
        seen.append(dict(image.info))
        return image

    options = {"preprocessing": PREPROCESSING, "batch_size": 1, "seed": 0, "augment": (look,)}
    for _ in range(2):
        with train_batches(records, cache=str(cache), **options) as batches:
            next(batches)
    assert seen and all(info == {} for info in seen)


def test_a_file_put_in_the_place_of_another_is_read(tmp_path, cache):
    paths = [str(save_photo(tmp_path / f"{n}.bmp", n)) for n in range(2)]
    records = Records(images=paths[:1], labels=np.ones((1, 1), np.int8), class_names=("a",))
    _evaluated(records, cache)
    before = os.stat(paths[0])
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(paths[1], paths[0])
    np.testing.assert_array_equal(_evaluated(records, cache), _evaluated(records))


def test_no_name_is_no_folder():
    with pytest.raises(ValueError, match="cache must be a folder, or None"):
        override(config(), ["data.cache="])
