"""Lists of images and labels in JSON, as AAM's code ships them."""

import json

import numpy as np
import pytest

from mljax.data.readers.json_lists import json_lists
from tests.data.odd_folders import rows, touch

IMAGES = [["a/1.jpg", ["dog", "cat", "dog"]], ["2.jpg", []], ["a/3.jpg", ["bird"]]]
CLASSES = ["dog", "bird", "cat"]


def _write(root, images=IMAGES, classes=CLASSES, split="train"):
    touch(root, *(name for name, _ in images))
    (root / f"{split}.json").write_text(json.dumps({"images": images, "classes": classes}))
    return root


def test_classes_are_sorted_labels_listed_twice_are_one_and_none_is_all_absent(tmp_path):
    records = json_lists("train", root=_write(tmp_path))
    assert records.class_names == ("bird", "cat", "dog")
    assert rows(records) == {"1.jpg": [0, 1, 1], "2.jpg": [0, 0, 0], "3.jpg": [1, 0, 0]}
    assert records.images[0] == str(tmp_path / "a/1.jpg")


def test_numbers_are_sorted_by_value_and_named_by_their_digits(tmp_path):
    _write(tmp_path, [["1.jpg", [10, 2]], ["2.jpg", [9]]], [10, 9, 2])
    records = json_lists("train", root=tmp_path)
    assert records.class_names == ("2", "9", "10")
    assert records.labels.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_names_are_compared_as_they_are_kept(tmp_path):
    _write(tmp_path, [["1.jpg", ["cafe\u0301 "]]], ["caf\u00e9", "tea"])
    assert json_lists("train", root=tmp_path).labels.tolist() == [[1, 0]]


def test_unknown_labels_are_an_error_unless_they_may_be_left_out(tmp_path):
    _write(tmp_path, [*IMAGES, ["4.jpg", ["fox", "cat"]]])
    with pytest.raises(ValueError, match="train.json, image 3: the label 'fox' is none of the 3"):
        json_lists("train", root=tmp_path)
    records = json_lists("train", root=tmp_path, unknown_labels=True)
    assert records.labels[3].tolist() == [0, 1, 0]


def test_missing_images_are_counted_or_skipped(tmp_path):
    (_write(tmp_path) / "a/1.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images are missing, such as .*a/1.jpg"):
        json_lists("train", root=tmp_path)
    assert len(json_lists("train", root=tmp_path, missing_images="skip")) == 2
    assert len(json_lists("train", root=tmp_path, missing_images="unchecked")) == 3


@pytest.mark.parametrize(
    ("images", "classes", "message"),
    [
        (IMAGES, {"dog": 0}, "train.json: expected the lists `images` and `classes`"),
        (IMAGES, ["dog", 1], "train.json: some classes are text, some are numbers"),
        (IMAGES, ["dog", "cat", "dog "], "train.json: the class 'dog' occurs twice"),
        (IMAGES, [], "train.json, classes: there is no class"),
        (IMAGES, ["dog", None], "train.json: class 1: the id is None"),
        (IMAGES, ["dog", "\u200b"], "train.json, classes: class name 0 is blank"),
        ([["1.jpg", [True]]], ["dog"], "train.json, image 0: the id is True"),
        ([["1.jpg", "dog"]], ["dog"], r"image 0: got \['1.jpg', 'dog'\], expected \[path, \[lab"),
        ([["1.jpg", []], ["./1.jpg", []]], ["dog"], "image 0 and image 1 are the same picture"),
    ],
)
def test_malformed_files_are_named(tmp_path, images, classes, message):
    with pytest.raises(ValueError, match=message):
        json_lists("train", root=_write(tmp_path, images, classes))


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="got split='val', there are lists of train"):
        json_lists("val", root=_write(tmp_path))


def test_labels_of_a_split_have_the_type_of_labels(tmp_path):
    assert json_lists("train", root=_write(tmp_path)).labels.dtype == np.int8
