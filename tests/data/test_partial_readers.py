"""Readers that hide labels do so in the training split alone."""

import inspect
import json

import numpy as np
import pytest

from mljax.data.coco import coco
from mljax.data.digits import digits
from mljax.data.partial import simulate
from mljax.data.partial_readers import partial_coco, partial_digits


@pytest.fixture
def root(tmp_path):
    """Returns a COCO folder of 20 images and three classes, the same for both splits."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(20)],
        "categories": [{"id": c, "name": "abc"[c]} for c in range(3)],
        "annotations": [{"image_id": i, "category_id": i % 3} for i in range(20)],
    }
    (tmp_path / "annotations").mkdir()
    for name in ("train2017", "val2017"):
        (tmp_path / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.jpg").touch()
    return tmp_path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("method", "amount"), [("fix_per_class", 2), ("random_per_sample", 0.5)])
def test_training_split_of_coco_is_the_simulation_of_the_whole(root, method, amount, legacy):
    options = {"method": method, "amount": amount, "seed": 3, "legacy": legacy}
    records = partial_coco("train", root=root, **options)
    whole = coco("train", root=root)
    expected = simulate(whole, method, amount, seed=3, legacy=legacy)
    np.testing.assert_array_equal(records.labels, expected.labels)
    assert records.images == whole.images
    assert (records.labels == -1).any()


def test_other_splits_of_coco_are_whole(root):
    records = partial_coco("val", root=root, amount=2)
    np.testing.assert_array_equal(records.labels, coco("val", root=root).labels)


def test_arguments_of_coco_are_passed_on(root):
    records = partial_coco("train", root=root, year=2017, image_ids=[7, 5], amount=1)
    assert [path[-5] for path in records.images] == ["7", "5"]
    given = inspect.signature(partial_coco).parameters
    for name, parameter in inspect.signature(coco).parameters.items():
        assert given[name].default == parameter.default


def test_digits_are_hidden_in_the_training_split_alone():
    train = partial_digits("train", num_images=50, amount=0.7, seed=1)
    expected = simulate(digits("train", num_images=50), "random_per_sample", 0.7, seed=1)
    np.testing.assert_array_equal(train.labels, expected.labels)
    np.testing.assert_array_equal(train.images, expected.images)
    val = partial_digits("val", num_images=50, digits_seed=2)
    np.testing.assert_array_equal(val.labels, digits("val", num_images=50, seed=2).labels)


def test_impossible_amounts_are_refused():
    with pytest.raises(ValueError, match="amount is a probability"):
        partial_digits("train", num_images=5, amount=2)
