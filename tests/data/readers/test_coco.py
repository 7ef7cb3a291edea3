"""COCO folders: order, classes, crowds, subsets, and errors that name the file."""

import json

import numpy as np
import pytest

from mljax.data.readers.coco import coco
from tests import golden


def _content():
    """Three images; the last has no object; the objects name the second image first."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (7, 5, 9)],
        "categories": [{"id": 3, "name": "zebra"}, {"id": 1, "name": "ant"}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "iscrowd": 1, "segmentation": [[1, 2]]},
            {"image_id": 7, "category_id": 3},
            {"image_id": 5, "category_id": 1},
        ],
    }


def _folder(root, content, name="train2017"):
    (root / "annotations").mkdir(exist_ok=True)
    (root / name).mkdir()
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    for image in content.get("images", []):
        (root / name / image["file_name"]).touch()
    return root


def test_images_with_objects_come_in_the_order_of_the_annotations(tmp_path):
    records = coco("train", root=_folder(tmp_path, _content()))
    assert records.images == [str(tmp_path / "train2017" / name) for name in ("5.jpg", "7.jpg")]
    assert records.class_names == ("zebra", "ant")
    assert records.labels.tolist() == [[0, 1], [1, 0]]


def test_images_without_objects_are_kept_on_request_in_the_order_of_the_images(tmp_path):
    records = coco("train", root=_folder(tmp_path, _content()), keep_unannotated=True)
    assert [path[-5:] for path in records.images] == ["7.jpg", "5.jpg", "9.jpg"]
    assert records.labels.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_labels_and_order_equal_reference(tmp_path):
    content = golden.cases("asl_data")["coco_thirds"]["extra"]["annotations"]
    expected = golden.arrays("asl_data", "coco_thirds")
    records = coco("val", root=_folder(tmp_path, content, "val2014"))
    files = {image["id"]: image["file_name"] for image in content["images"]}
    folder = tmp_path / "val2014"
    assert records.images == [str(folder / files[image]) for image in expected["ids"].tolist()]
    np.testing.assert_array_equal(records.labels, expected["target"])


def test_labels_by_name_equal_those_of_ml_gcn(tmp_path):
    """Its images have the order of the file, its classes that of the alphabet."""
    texts = golden.arrays("mlgcn_data", "coco")
    records = coco(
        "train", root=_folder(tmp_path, json.loads(str(texts["instances"])), "train2014")
    )
    number = json.loads(str(texts["category"]))
    found = {
        path.rpartition("/")[2]: {number[records.class_names[k]] for k in np.flatnonzero(row)}
        for path, row in zip(records.images, records.labels, strict=True)
    }
    expected = json.loads(str(texts["train_anno"]))
    assert found == {each["file_name"]: set(each["labels"]) for each in expected}


def test_year_must_be_said_where_both_are_there(tmp_path):
    _folder(tmp_path, _content())
    _folder(tmp_path, {**_content(), "annotations": _content()["annotations"][:1]}, "train2014")
    with pytest.raises(ValueError, match="both COCO 2014 and 2017: say which"):
        coco("train", root=tmp_path)
    assert len(coco("train", root=tmp_path, year=2014)) == 1
    assert len(coco("train", root=tmp_path, year=2017)) == 2


def test_subset_keeps_the_order_of_its_list(tmp_path):
    root = _folder(tmp_path, _content())
    records = coco("train", root=root, image_ids=[7, 5])
    assert [path[-5:] for path in records.images] == ["7.jpg", "5.jpg"]
    assert records.labels.tolist() == [[1, 0], [0, 1]]


def test_subset_file_is_in_the_notation_of_numpy(tmp_path):
    np.savetxt(tmp_path / "ids.csv", [7, 5])
    assert "e+00" in (tmp_path / "ids.csv").read_text()
    records = coco("train", root=_folder(tmp_path, _content()), image_ids=tmp_path / "ids.csv")
    assert [path[-5:] for path in records.images] == ["7.jpg", "5.jpg"]


def test_subset_of_one_split_leaves_the_others_whole(tmp_path):
    for split in ("train2017", "val2017"):
        _folder(tmp_path, _content(), split)
    counts = [len(coco(s, root=tmp_path, image_ids={"train": [7]})) for s in ("train", "val")]
    assert counts == [1, 2]


def test_subset_of_a_split_that_is_not_there_is_refused(tmp_path):
    root = _folder(tmp_path, _content())
    with pytest.raises(ValueError, match="no COCO annotations: expected .*instances_trian2014"):
        coco("train", root=root, image_ids={"trian": [7]})


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([7, 8], r"image_ids: 1 ids, such as 8, are not among the images of .*train2017.json"),
        ([7, 9], "such as 9, .* need keep_unannotated=True"),
        ([7, 7], "image_ids: an image id occurs twice"),
    ],
)
def test_impossible_subsets_are_refused(tmp_path, ids, message):
    with pytest.raises(ValueError, match=message):
        coco("train", root=_folder(tmp_path, _content()), image_ids=ids)


@pytest.mark.parametrize("text", ["7.5\n", "seven\n"])
def test_subset_file_without_whole_numbers_is_refused(tmp_path, text):
    (tmp_path / "ids.csv").write_text(text)
    with pytest.raises(ValueError, match="ids.csv: expected one whole number a line"):
        coco("train", root=_folder(tmp_path, _content()), image_ids=tmp_path / "ids.csv")


def test_missing_subset_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="image_ids: there is no file .*ids.csv"):
        coco("train", root=_folder(tmp_path, _content()), image_ids=str(tmp_path / "ids.csv"))


def _without(key):
    return {name: value for name, value in _content().items() if name != key}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_without("categories"), "train2017.json: not in COCO's format, field 'categories'"),
        (_without("images"), "field 'images' is missing"),
        (_content() | {"annotations": [{"image_id": 5}]}, "field 'category_id' is missing"),
        (_content() | {"annotations": []}, "records are empty"),
        (
            _content() | {"annotations": [{"image_id": 1, "category_id": 3}]},
            "an annotation names image 1 and category 3",
        ),
        (
            _content() | {"categories": [{"id": 1, "name": "ant"}, {"id": 3, "name": "ant"}]},
            "class names occur twice: ant",
        ),
        (
            _content() | {"images": [{"id": 5, "file_name": "5.jpg"}] * 2},
            "images: the id 5 occurs twice",
        ),
        ([], "not in COCO's format"),
    ],
)
def test_malformed_annotations_are_refused(tmp_path, content, message):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        coco("train", root=tmp_path)


def test_truncated_annotations_are_refused(tmp_path):
    path = _folder(tmp_path, _content()) / "annotations" / "instances_train2017.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="train2017.json: not a JSON file"):
        coco("train", root=tmp_path)


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(ValueError, match="instances_val2014.json or .*instances_val2017.json"):
        coco("val", root=tmp_path)


def test_missing_images_are_counted(tmp_path):
    root = _folder(tmp_path, _content())
    (root / "train2017" / "5.jpg").unlink()
    with pytest.raises(ValueError, match="train2017: 1 of 2 images are missing, such as 5.jpg"):
        coco("train", root=root)


def test_missing_image_folder_is_named(tmp_path):
    root = _folder(tmp_path, _content())
    (root / "train2017").rename(root / "images")
    with pytest.raises(ValueError, match="there is no image folder .*train2017"):
        coco("train", root=root)
