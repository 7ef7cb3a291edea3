"""LVIS: present, absent and unannotated classes; images of both COCO folders."""

import json

import pytest

from mljax.data.readers.lvis import lvis


def _image(number, folder, absent=(), not_exhaustive=()):
    return {
        "id": number,
        "coco_url": f"http://images.cocodataset.org/{folder}/{number}.jpg",
        "neg_category_ids": list(absent),
        "not_exhaustive_category_ids": list(not_exhaustive),
    }


def _content():
    return {
        "images": [
            _image(7, "train2017", absent=[2]),
            _image(5, "val2017", not_exhaustive=[3, 9]),
            _image(6, "val2017"),
        ],
        "categories": [
            {"id": 3, "name": "zebra"},
            {"id": 2, "name": "ant"},
            {"id": 9, "name": "x"},
        ],
        "annotations": [
            {"image_id": 5, "category_id": 3, "segmentation": [[1, 2]], "id": 1},
            {"image_id": 7, "category_id": 3, "id": 2},
            {"image_id": 5, "category_id": 3, "id": 3},
        ],
    }


def _folder(root, content, name="lvis_v1_val.json"):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps(content))
    for file in ("train2017/7.jpg", "val2017/5.jpg", "val2017/6.jpg"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
    return root


def _labels(records):
    return [row.tolist() for row in records.labels]


@pytest.mark.parametrize("name", ["lvis_v1_val.json", "annotations/lvis_v1_val.json"])
def test_classes_are_present_absent_or_unannotated(tmp_path, name):
    records = lvis("val", root=_folder(tmp_path, _content(), name))
    files = ("train2017/7.jpg", "val2017/5.jpg", "val2017/6.jpg")
    assert records.images == [str(tmp_path / file) for file in files]
    assert records.class_names == ("zebra", "ant", "x")
    # Image 5 is not exhaustive for zebra, which stays present, and x, of which nothing is known.
    assert _labels(records) == [[1, 0, -1], [1, -1, -1], [-1, -1, -1]]


def test_annotations_and_images_may_lie_apart(tmp_path):
    _folder(tmp_path, _content(), "other/mine.json")
    records = lvis("x", root=tmp_path / "other", annotations="mine.json", image_root=tmp_path)
    assert records.images[1] == str(tmp_path / "val2017" / "5.jpg")


def test_missing_images_are_counted_or_skipped(tmp_path):
    root = _folder(tmp_path, _content())
    (root / "val2017" / "5.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 3 images are missing, such as .*val2017/5.jpg"):
        lvis("val", root=root)
    records = lvis("val", root=root, missing_images="skip")
    assert _labels(records) == [[1, 0, -1], [-1, -1, -1]]
    assert len(lvis("val", root=root, missing_images="unchecked")) == 3


def _without(key):
    return {name: value for name, value in _content().items() if name != key}


def _with_image(**fields):
    image = {k: v for k, v in (_image(8, "val2017") | fields).items() if v is not None}
    return _content() | {"images": [*_content()["images"], image]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_without("categories"), "not in the format of LVIS, field 'categories' is missing"),
        (_without("annotations"), "field 'annotations' is missing"),
        (_with_image(neg_category_ids=None), "field 'neg_category_ids' is missing"),
        (_with_image(coco_url="8.jpg"), "image 8 has the coco_url '8.jpg', expected it to end in"),
        (_with_image(coco_url=8), "not in the format of LVIS"),
        (_with_image(id=5), "the id 5 occurs twice"),
        (_with_image(neg_category_ids=[4]), "image 8 and category 4, which are not both in the"),
        (
            _content() | {"annotations": [{"image_id": 7, "category_id": 2}]},
            "category 2 is both present and absent in image 7",
        ),
        (
            _content() | {"annotations": [{"image_id": 7}]},
            "field 'category_id' is missing in annotations",
        ),
        ([], "not in the format of LVIS"),
    ],
)
def test_malformed_annotations_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"lvis_v1_val.json: .*{message}"):
        lvis("val", root=_folder(tmp_path, content))


def test_truncated_annotations_are_refused(tmp_path):
    path = _folder(tmp_path, _content()) / "lvis_v1_val.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="lvis_v1_val.json: not a JSON file"):
        lvis("val", root=tmp_path)


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(ValueError, match="expected .*/lvis_v1_train.json or .*annotations/lvis_v1"):
        lvis("train", root=tmp_path)
    with pytest.raises(ValueError, match="expected .*/mine.json$"):
        lvis("train", root=tmp_path, annotations="mine.json")
