"""The embedded data set: disjoint splits, sane canvases, reproducible."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mljax.data.readers import digits as module
from mljax.data.readers.digits import CLASS_NAMES, digits

SPLITS = ("train", "val", "test")


def test_splits_divide_the_source_digits_without_overlap(monkeypatch):
    used = {}
    for split in SPLITS:
        seen = used[split] = []
        monkeypatch.setattr(
            module,
            "_compose",
            lambda sources, size, rng, seen=seen: seen.extend(sources) or 0,
        )
        digits(split, num_images=4000, seed=len(used))
    rows = {split: {source.tobytes() for source in used[split]} for split in SPLITS}
    assert sum(map(len, rows.values())) == len(set.union(*rows.values()))
    pixels = load_digits().images.astype(int)
    assert len(set.union(*rows.values())) == len({image.tobytes() for image in pixels})


@pytest.mark.parametrize("canvas_size", [16, 32, 45])
def test_canvases_are_bytes_of_the_size_asked_for(canvas_size):
    records = digits("val", num_images=5, canvas_size=canvas_size)
    assert records.images.shape == (5, canvas_size, canvas_size, 3)
    assert (records.images.dtype, records.labels.dtype) == (np.uint8, np.int8)
    assert records.class_names == CLASS_NAMES


def test_canvases_hold_one_to_four_classes_in_similar_numbers():
    labels = digits("train", num_images=1500).labels
    assert set(np.unique(labels)) == {0, 1}
    assert set(labels.sum(axis=1)) == {1, 2, 3, 4}
    assert 0.17 < labels.mean(axis=0).min() and labels.mean(axis=0).max() < 0.28


def test_defaults_are_a_small_training_and_evaluation_set():
    assert (len(digits("train")), len(digits("val"))) == (4096, 1024)


def test_canvases_are_a_function_of_the_seed_and_the_split():
    first, again, other = (digits("val", num_images=4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    assert np.any(first.images != other.images)
    assert np.any(first.images != digits("test", num_images=4, seed=1).images)


@pytest.mark.parametrize(
    ("split", "arguments", "message"),
    [
        ("valid", {}, "split: got 'valid', expected one of train, val, test"),
        ("val", {"num_images": 0}, "num_images: got 0"),
        ("val", {"canvas_size": 8}, "canvas_size: got 8 pixels, expected at least 16"),
    ],
)
def test_impossible_arguments_are_refused(split, arguments, message):
    with pytest.raises(ValueError, match=message):
        digits(split, **arguments)
