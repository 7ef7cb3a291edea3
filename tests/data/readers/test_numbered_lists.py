"""ML-GCN's JSON files, against the code that writes them, and what is wrong in them."""

import json

import numpy as np
import pytest

from mljax.data.readers.coco import coco
from mljax.data.readers.numbered_lists import numbered_lists
from mljax.data.readers.voc import VOC_CLASSES
from mljax.data.readers.voc_csv import voc_csv
from tests import golden
from tests.data.odd_folders import rows, touch

CATEGORY = {"dog": 1, "cat": 0, "fox": 2}
IMAGES = [
    {"file_name": "1.jpg", "labels": [2, 0, 2]},
    {"file_name": "a/2.jpg", "labels": []},
]


def _write(root, images=IMAGES, category=CATEGORY, split="train"):
    folder = root / "data"
    touch(folder / "train2014", *(each["file_name"] for each in IMAGES))
    (folder / f"{split}_anno.json").write_text(json.dumps(images))
    (folder / "category.json").write_text(json.dumps(category))
    return root


def test_classes_are_in_the_order_of_their_numbers(tmp_path):
    records = numbered_lists("train", root=_write(tmp_path))
    assert records.class_names == ("cat", "dog", "fox")
    assert rows(records) == {"1.jpg": [1, 0, 1], "2.jpg": [0, 0, 0]}
    assert records.images[0] == str(tmp_path / "data/train2014/1.jpg")
    split = numbered_lists("trainsplit", root=_write(tmp_path, split="trainsplit"))
    assert split.images == records.images


def test_the_original_writes_of_coco_what_its_own_reader_reads(tmp_path):
    written = {name: str(text) for name, text in golden.arrays("mlgcn_data", "coco").items()}
    folder = tmp_path / "data"
    names = [image["file_name"] for image in json.loads(written["instances"])["images"]]
    touch(folder / "train2014", *names)
    for name in ("train_anno", "category"):
        (folder / f"{name}.json").write_text(written[name])
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_train2014.json").write_text(written["instances"])
    found = numbered_lists("train", root=tmp_path)
    expected = coco("train", root=folder, year=2014)
    assert found.class_names == tuple(sorted(expected.class_names))
    assert found.class_names != expected.class_names
    order = [expected.class_names.index(name) for name in found.class_names]
    listed = {image: row[order].tolist() for image, row in zip(*_both(expected), strict=True)}
    assert {image: row.tolist() for image, row in zip(*_both(found), strict=True)} == listed
    assert len(found) == 3


def _both(records):
    return records.images, records.labels


@pytest.mark.parametrize("form", ["csv", "lists"])
def test_voc_has_the_labels_of_the_original(tmp_path, form):
    expected = golden.arrays("mlgcn_data", "voc")
    devkit = tmp_path / "VOCdevkit/VOC2007"
    touch(devkit / "JPEGImages", *(f"{name}.jpg" for name in expected["names"]))
    if form == "csv":
        (tmp_path / "files/VOC2007").mkdir(parents=True)
        path = tmp_path / "files/VOC2007/classification_trainval.csv"
        path.write_text(str(expected["csv"]))
    else:
        (devkit / "ImageSets/Main").mkdir(parents=True)
        for name, text in zip(VOC_CLASSES, expected["texts"], strict=True):
            (devkit / f"ImageSets/Main/{name}_trainval.txt").write_text(str(text))
    records = voc_csv("trainval", root=tmp_path)
    assert [path.rpartition("/")[2].removesuffix(".jpg") for path in records.images] == list(
        expected["names"]
    )
    np.testing.assert_array_equal(records.labels, expected["labels"] >= 0)
    np.testing.assert_array_equal(records.ignored, expected["labels"] == 0)


@pytest.mark.parametrize(
    ("images", "category", "message"),
    [
        ({}, CATEGORY, "train_anno.json: expected a list of images"),
        (IMAGES, [], "category.json: expected a number for each name"),
        (IMAGES, {"dog": True}, "category.json: expected a number for each name"),
        (IMAGES, {"dog": 0, "cat": 2}, "category.json: expected each number from 0 to 1 once"),
        (IMAGES, {"": 0}, "category.json: class name 0 is blank"),
        ([{"file_name": "1.jpg"}], CATEGORY, "image 0: got {'file_name': '1.jpg'}, expected a fil"),
        ([{"labels": [1]}], CATEGORY, "train_anno.json, image 0"),
        ([{"file_name": "1.jpg", "labels": [3]}], CATEGORY, "label 3, expected a number from 0"),
        ([{"file_name": "1.jpg", "labels": [-1]}], CATEGORY, "label -1, expected a number from 0"),
        ([IMAGES[0], IMAGES[0]], CATEGORY, "image 0 and image 1 are the same picture"),
    ],
)
def test_malformed_files_are_named(tmp_path, images, category, message):
    with pytest.raises(ValueError, match=message):
        numbered_lists("train", root=_write(tmp_path, images, category))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="got split='val', there are images of train|val_anno"):
        numbered_lists("val", root=_write(tmp_path))
    (tmp_path / "data/train2014/1.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 2 images are missing"):
        numbered_lists("train", root=tmp_path)
    (tmp_path / "data/category.json").unlink()
    with pytest.raises(ValueError, match="category.json: no such file"):
        numbered_lists("train", root=tmp_path)
