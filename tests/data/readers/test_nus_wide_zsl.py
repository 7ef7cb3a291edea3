"""NUS-WIDE for zero-shot learning: class sets, dropped images, word vectors."""

import json

import numpy as np
import pytest

from mljax.data.readers.nus_wide_zsl import all_classes, nus_wide_zsl, word_vectors_of
from tests.data import npy

ROWS = (
    'images/1.jpg,"[sky, dog]",train',
    "images/2.jpg,[moon],val",
    'images/3.jpg,"[moon, sky]",val',
    "images/4.jpg,[moon],train",
    "images/5.jpg,[],train",
    "images/6.jpg,[ant],val",
)
SETS = {"train class": ["sky", "dog", "unseen"], "test class": ["moon", "ant"]}


def _write(root, rows=ROWS, sets=SETS):
    (root / "data.csv").write_text("\n".join(["path,labels,split", *rows]) + "\n")
    (root / "benchmark_81_v0.json").write_text(json.dumps(sets))
    (root / "images").mkdir(exist_ok=True)
    for number in range(1, 7):
        (root / f"images/{number}.jpg").touch()
    return root


def _numbers(records):
    return [int(path[-5]) for path in records.images]


def test_training_split_has_the_training_classes_sorted(tmp_path):
    records = nus_wide_zsl("train", root=_write(tmp_path))
    assert records.images == [str(tmp_path / "images/1.jpg")]
    assert records.class_names == ("dog", "sky")
    assert records.labels.tolist() == [[1, 1]]


def test_other_splits_have_the_test_classes(tmp_path):
    records = nus_wide_zsl("val", root=_write(tmp_path))
    assert _numbers(records) == [2, 3, 6]
    assert records.class_names == ("ant", "moon")
    assert records.labels.tolist() == [[0, 1], [0, 1], [1, 0]]


def test_class_set_can_be_chosen(tmp_path):
    root = _write(tmp_path)
    seen = nus_wide_zsl("val", root=root, class_set="train")
    assert (_numbers(seen), seen.class_names) == ([3], ("dog", "sky"))
    everything = nus_wide_zsl("val", root=root, class_set="all")
    assert everything.class_names == all_classes(root) == ("ant", "dog", "moon", "sky")
    assert everything.labels.tolist() == [[0, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]]


def test_images_without_label_of_the_classes_are_kept_on_request(tmp_path):
    records = nus_wide_zsl("train", root=_write(tmp_path), keep_unlabeled=True)
    assert (_numbers(records), records.labels.tolist()) == ([1, 4, 5], [[1, 1], [0, 0], [0, 0]])


def test_every_class_that_is_not_tested_is_trained_unless_listed(tmp_path):
    root = _write(tmp_path, sets={"test class": ["moon"]})
    assert nus_wide_zsl("train", root=root).class_names == ("ant", "dog", "sky")


def test_quotes_are_part_of_a_name(tmp_path):
    root = _write(tmp_path, ["images/1.jpg,\"['sky', 'dog']\",train"], {"test class": ["'dog'"]})
    assert nus_wide_zsl("train", root=root).class_names == ("'sky'",)


def test_word_vectors_are_those_of_the_classes_in_their_order(tmp_path):
    vectors = np.arange(8.0).reshape(2, 4)
    found = word_vectors_of(vectors, "train", root=_write(tmp_path))
    np.testing.assert_array_equal(found, [[1, 5], [3, 7]])
    found = word_vectors_of(vectors, "val", root=tmp_path)
    np.testing.assert_array_equal(found, [[0, 4], [2, 6]])
    with pytest.raises(ValueError, match=r"got shape \(2, 3\), expected .* each of the 4 classes"):
        word_vectors_of(vectors[:, :3], "train", root=tmp_path)


def test_records_carry_the_word_vectors_of_their_classes(tmp_path):
    root = _write(tmp_path)
    assert nus_wide_zsl("val", root=root).class_vectors is None
    np.save(root / "words.npy", np.arange(8.0).reshape(2, 4))
    records = nus_wide_zsl("val", root=root, word_vectors="words.npy")
    np.testing.assert_array_equal(records.class_vectors, [[0, 4], [2, 6]])
    assert records.class_vectors.dtype == np.float32


def test_word_vectors_that_are_not_there_are_named(tmp_path):
    root = _write(tmp_path)
    with pytest.raises(ValueError, match="words.npy: no such file"):
        nus_wide_zsl("val", root=root, word_vectors="words.npy")
    np.save(root / "words.npy", np.arange(8.0))
    with pytest.raises(ValueError, match=r"words.npy: got shape \(8,\), expected .300, classes"):
        nus_wide_zsl("val", root=root, word_vectors="words.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an array saved by numpy.save"),
        (npy.archive(), "not an array saved by numpy.save"),
        (npy.saved(np.zeros((300, 0))), r"got shape \(300, 0\)"),
        (npy.saved(np.zeros((300, 4), "U1")), "got <U1, expected floating-point"),
    ],
    ids=["empty", "npz", "no column", "text"],
)
def test_word_vectors_of_another_kind_are_named(tmp_path, content, message):
    root = _write(tmp_path)
    (root / "words.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"words.npy: {message}"):
        nus_wide_zsl("val", root=root, word_vectors="words.npy")


def test_split_without_any_label_of_the_classes_is_named(tmp_path):
    root = _write(tmp_path, ROWS[1:])
    with pytest.raises(ValueError, match="data.csv: none of the 2 images of the split 'train' has"):
        nus_wide_zsl("train", root=root)


def test_split_without_any_image_file_is_named(tmp_path):
    root = _write(tmp_path)
    (root / "images/1.jpg").unlink()
    with pytest.raises(ValueError, match=f"{root}: there is none of .* split 'train', such as"):
        nus_wide_zsl("train", root=root, missing_images="skip")


def test_table_of_other_columns_is_named(tmp_path):
    root = _write(tmp_path)
    (root / "data.csv").write_text("path,label\nimages/1.jpg,[sky]\n")
    with pytest.raises(ValueError, match="data.csv, line 1: got 2 columns, expected the path, the"):
        nus_wide_zsl("train", root=root)


def test_missing_images_are_counted_or_skipped(tmp_path):
    root = _write(tmp_path)
    (root / "images/2.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images are missing, such as .*images/2.jpg"):
        nus_wide_zsl("val", root=root)
    records = nus_wide_zsl("val", root=root, missing_images="skip")
    assert (_numbers(records), records.labels.tolist()) == ([3, 6], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("rows", "sets", "split", "message"),
    [
        (["images/1.jpg,[sky]"], SETS, "train", "data.csv, line 2: got 2 cells, expected 3 as in"),
        ([], SETS, "train", "data.csv: there is no row below the header"),
        (["images/5.jpg,[],train"], SETS, "train", "data.csv: no row has a label"),
        (ROWS, SETS, "test", r"no row is of split 'test'; there are \['train', 'val'\]"),
        (ROWS, {"train class": ["sky"]}, "train", "v0.json: expected the lists .*'test class'"),
        (ROWS, [], "train", "v0.json: expected the lists"),
        (ROWS, {"train class": ["Sky"], "test class": []}, "train", "none of its train classes is"),
    ],
)
def test_malformed_files_are_named(tmp_path, rows, sets, split, message):
    with pytest.raises(ValueError, match=message):
        nus_wide_zsl(split, root=_write(tmp_path, rows, sets))


@pytest.mark.parametrize("name", ["data.csv", "benchmark_81_v0.json"])
def test_missing_files_are_named(tmp_path, name):
    (_write(tmp_path) / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        nus_wide_zsl("train", root=tmp_path)


def test_unknown_class_set_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="class_set: got 'seen', expected 'train', 'test' or 'all'"
    ):
        nus_wide_zsl("train", root=_write(tmp_path), class_set="seen")
