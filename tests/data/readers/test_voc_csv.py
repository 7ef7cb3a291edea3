"""KMCL's CSV form of VOC: three values, the lists behind it, errors that name file and line."""

import numpy as np
import pytest
from PIL import Image

from mljax.data.readers.voc import VOC_CLASSES
from mljax.data.readers.voc_csv import voc_csv
from tests import golden

CSV = "files/VOC2007/classification_trainval.csv"
NAMES = ("000005", "000007", "000012")
VALUES = np.full((3, 20), -1)
VALUES[0, 8] = VALUES[1, 6] = VALUES[2, 6] = 1
VALUES[0, 14] = VALUES[2, 19] = 0


def _text(header=("name", *VOC_CLASSES), names=NAMES, values=VALUES):
    rows = [header, *([name, *row] for name, row in zip(names, values, strict=True))]
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def _folder(path, text=None):
    images = path / "VOCdevkit/VOC2007/JPEGImages"
    images.mkdir(parents=True)
    for name in NAMES:
        Image.new("RGB", (4, 4)).save(images / f"{name}.jpg")
    if text is not None:
        (path / CSV).parent.mkdir(parents=True)
        (path / CSV).write_text(text)
    return path


def _write_lists(root, names=NAMES):
    folder = root / "VOCdevkit/VOC2007/ImageSets/Main"
    folder.mkdir(parents=True)
    for column, class_name in enumerate(VOC_CLASSES):
        lines = (f"{n} {v:2}\n" for n, v in zip(names, VALUES[:, column], strict=True))
        (folder / f"{class_name}_trainval.txt").write_text("".join(lines))
    return folder


def _read(root):
    return voc_csv("trainval", root=root)


def test_difficult_objects_are_present_and_ignored(tmp_path):
    records = _read(_folder(tmp_path, _text()))
    assert records.class_names == VOC_CLASSES
    np.testing.assert_array_equal(records.labels, VALUES >= 0)
    np.testing.assert_array_equal(records.ignored, VALUES == 0)


@pytest.mark.parametrize("form", ["csv", "lists"])
def test_labels_equal_those_of_ml_gcn(tmp_path, form):
    arrays = golden.arrays("mlgcn_data", "voc")
    root, images = tmp_path, tmp_path / "VOCdevkit/VOC2007/JPEGImages"
    images.mkdir(parents=True)
    for name in arrays["names"]:
        (images / f"{name}.jpg").touch()
    if form == "csv":
        (root / CSV).parent.mkdir(parents=True)
        (root / CSV).write_text(str(arrays["csv"]))
    else:
        folder = root / "VOCdevkit/VOC2007/ImageSets/Main"
        folder.mkdir(parents=True)
        for class_name, text in zip(VOC_CLASSES, arrays["texts"], strict=True):
            (folder / f"{class_name}_trainval.txt").write_text(text)
    records = _read(root)
    assert records.images == [str(images / f"{name}.jpg") for name in arrays["names"]]
    np.testing.assert_array_equal(records.labels, arrays["labels"] >= 0)
    np.testing.assert_array_equal(records.ignored, arrays["labels"] == 0)


def test_images_are_found_by_name(tmp_path):
    folder = tmp_path / "VOCdevkit/VOC2007/JPEGImages"
    assert _read(_folder(tmp_path, _text())).images == [str(folder / f"{n}.jpg") for n in NAMES]


def test_columns_in_another_order_are_put_in_order(tmp_path):
    text = _text(("name", *VOC_CLASSES[::-1]), values=VALUES[:, ::-1])
    np.testing.assert_array_equal(_read(_folder(tmp_path, text)).labels, VALUES >= 0)


def test_values_may_have_decimals(tmp_path):
    text = _text(values=VALUES.astype(float))
    np.testing.assert_array_equal(_read(_folder(tmp_path, text)).ignored, VALUES == 0)


def test_lists_of_the_devkit_stand_in_for_a_missing_csv_file(tmp_path):
    expected = _read(_folder(tmp_path / "a", _text()))
    _write_lists(_folder(tmp_path / "b"))
    actual = _read(tmp_path / "b")
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.ignored, expected.ignored)
    assert [path[-10:] for path in actual.images] == [path[-10:] for path in expected.images]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_text().replace("000007,-1", "000007,2"), "line 3: aeroplane: got '2', expected one of"),
        (_text().replace("000012,", "000012,1,"), "line 4: got 22 cells, expected 21"),
        (_text(names=("000005", "000007", "000007")), "line 4: 000007.jpg is already in line 3"),
        (_text(names=("000005", "000007", "9")), "line 4: there is no image file .*9.jpg"),
        (_text().replace("cow", "yak"), "line 1: unknown class yak"),
        (
            _text(("name", *VOC_CLASSES[:19]), values=VALUES[:, :19]),
            "line 1: .* no column tvmonitor",
        ),
        (_text().replace("name", "image"), "line 1: .* begins with 'name'"),
        ("", "line 1: .* begins with 'name'"),
    ],
)
def test_bad_files_are_reported_with_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"classification_trainval.csv, .*({message})"):
        _read(_folder(tmp_path, text))


def test_bad_line_of_a_list_is_reported_with_file_and_line(tmp_path):
    folder = _write_lists(_folder(tmp_path))
    (folder / "bird_trainval.txt").write_text("000005 -1\n\n000007\n")
    with pytest.raises(ValueError, match=r"bird_trainval.txt, line 3: got '000007', expected a"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [("000005 -1\n000012 -1\n000007 -1\n", 2), ("000005 1\n", 2), ("", 1)],
)
def test_lists_of_different_images_are_reported(tmp_path, text, line):
    folder = _write_lists(_folder(tmp_path))
    (folder / "bird_trainval.txt").write_text(text)
    with pytest.raises(ValueError, match=f"bird_trainval.txt, line {line}: the images differ"):
        _read(tmp_path)


def test_lists_without_an_image_are_named(tmp_path):
    folder = _write_lists(_folder(tmp_path))
    for path in folder.iterdir():
        path.write_text("")
    with pytest.raises(ValueError, match="aeroplane_trainval.txt: the split 'trainval' has no im"):
        _read(tmp_path)


def test_list_that_is_not_utf8_is_named_with_its_line(tmp_path):
    folder = _write_lists(_folder(tmp_path))
    (folder / "bird_trainval.txt").write_bytes("000005 -1\né 1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="bird_trainval.txt, line 2: .* save it as UTF-8"):
        _read(tmp_path)


def test_no_labels_at_all_names_both_places(tmp_path):
    with pytest.raises(ValueError, match=r"aeroplane_trainval.txt: no such file, nor .*\.csv"):
        _read(_folder(tmp_path))
