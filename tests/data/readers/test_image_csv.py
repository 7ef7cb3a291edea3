"""CSV tables: both forms, the same classes in every split, errors that name file and line."""

import numpy as np
import pytest
from PIL import Image

from mljax.data.readers.image_csv import csv_table

COLUMNS = "image,sea,desert\nphotos/1.png,1,0\nphotos/2.png,0,-1\n"
LISTS = "image,labels\nphotos/1.png,sea\nphotos/2.png,desert sea\n"


def _folder(path, **files):
    (path / "photos").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (4, 4)).save(path / "photos" / f"{number}.png")
    for name, text in files.items():
        (path / f"{name}.csv").write_text(text)
    return path


def test_a_column_a_class(tmp_path):
    records = csv_table("train", root=_folder(tmp_path, train=COLUMNS))
    assert records.class_names == ("sea", "desert")
    assert records.labels.tolist() == [[1, 0], [0, -1]]
    assert records.images == [str(tmp_path / "photos" / name) for name in ("1.png", "2.png")]


def test_a_column_of_labels(tmp_path):
    records = csv_table("train", root=_folder(tmp_path, train=LISTS + "photos/3.png,\n"))
    assert records.class_names == ("desert", "sea")
    assert records.labels.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_classes_of_a_split_come_from_the_training_file(tmp_path):
    root = _folder(tmp_path, train=LISTS, val="image,labels\nphotos/3.png,sea\n")
    records = csv_table("val", root=root)
    assert (records.class_names, records.labels.tolist()) == (("desert", "sea"), [[0, 1]])


def test_columns_in_another_order_than_in_training_are_put_in_order(tmp_path):
    root = _folder(tmp_path, train=COLUMNS, val="image,desert,sea\nphotos/3.png,1,0\n")
    records = csv_table("val", root=root)
    assert (records.class_names, records.labels.tolist()) == (("sea", "desert"), [[0, 1]])


@pytest.mark.parametrize("text", [COLUMNS, LISTS])
def test_class_names_can_be_given(tmp_path, text):
    root = _folder(tmp_path, val=text)
    first = csv_table("val", root=root, class_names=["sea", "desert"])
    second = csv_table("val", root=root, class_names=["desert", "sea"])
    assert second.class_names == ("desert", "sea")
    np.testing.assert_array_equal(first.labels, second.labels[:, ::-1])


def test_file_names_follow_a_pattern(tmp_path):
    _folder(tmp_path, labels_fit=COLUMNS)
    arguments = {"root": tmp_path, "pattern": "labels_{split}.csv", "train_split": "fit"}
    assert len(csv_table("fit", **arguments)) == 2


def test_spreadsheet_habits_are_understood(tmp_path):
    text = '\ufeffimage, sea ,desert\r\n"photos/1.png", 1,0.0\r\n\r\nphotos/2.png,-1.0,1.0\r\n'
    records = csv_table("train", root=_folder(tmp_path, train=text))
    assert records.class_names == ("sea", "desert")
    assert records.labels.tolist() == [[1, 0], [-1, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "train.csv, line 1: got the header '', expected one that begins with 'image'"),
        ("photos/1.png,1,0\n", "train.csv, line 1: got the header"),
        ("image\nphotos/1.png\n", "train.csv, line 1: got the header 'image'"),
        ("image,sea,sea\nphotos/1.png,1,1\n", "line 1: a column occurs twice: 'sea'"),
        ("image,sea\nphotos/1.png,1\nphotos/2.png,1,0\n", "line 3: got 3 cells, expected 2"),
        (
            "image,sea\nphotos/1.png,1\nphotos/2.png,2\n",
            "line 3: sea: got '2', expected one of -1, 0, 1",
        ),
        ("image,sea\nphotos/1.png,\n", "line 2: sea: got '', expected one of -1, 0, 1"),
        ("image,sea\nphotos/1.png,1\nphotos/9.png,1\n", "line 3: there is no image file .*9.png"),
        (
            "image,sea\nphotos/1.png,1\n\nphotos/1.png,1\n",
            "line 4: photos/1.png is already in line 2",
        ),
        ("image,sea\n", "train.csv: there is no row below the header"),
        ("image,labels\nphotos/1.png,\n", "train.csv: no row has a label"),
        ("image,sea,\nphotos/1.png,1,\n", "line 1: got the header 'image,sea,', expected"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        csv_table("train", root=_folder(tmp_path, train=text))


@pytest.mark.parametrize(
    "pattern", ["{foo}.csv", "{}.csv", "{split.csv", "{split.name}.csv", "{split[a]}.csv"]
)
def test_pattern_that_is_none_is_named(tmp_path, pattern):
    with pytest.raises(ValueError, match=r"pattern: got '{.*, expected a file name with {split}"):
        csv_table("train", root=tmp_path, pattern=pattern)


def test_images_may_have_absolute_paths(tmp_path):
    (tmp_path / "tables").mkdir()
    root = _folder(tmp_path)
    image = str(root / "photos/1.png")
    (tmp_path / "tables/train.csv").write_text(f"image,sea\n{image},1\n../photos/2.png,0\n")
    records = csv_table("train", root=tmp_path / "tables")
    assert records.images == [image, str(tmp_path / "tables/../photos/2.png")]


def test_class_that_is_not_in_training_is_named(tmp_path):
    root = _folder(tmp_path, train=LISTS, val="image,labels\nphotos/3.png,sea moon\n")
    with pytest.raises(ValueError, match="val.csv, line 2: unknown class 'moon'; .* desert, sea"):
        csv_table("val", root=root)


def test_columns_that_differ_from_training_are_named(tmp_path):
    root = _folder(tmp_path, train=COLUMNS, val="image,sea,moon\nphotos/3.png,1,1\n")
    with pytest.raises(ValueError, match=r"missing: \['desert'\], unknown: \['moon'\]"):
        csv_table("val", root=root)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="test.csv: no such file"):
        csv_table("test", root=tmp_path)
