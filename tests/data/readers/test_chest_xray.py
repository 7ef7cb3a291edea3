"""ChestX-ray14 in KMCL's layout: columns by name or position, all rows, errors with their line."""

import numpy as np
import pytest
from PIL import Image

from mljax.data.readers.chest_xray import CHEST_XRAY_CLASSES, chest_xray

LABELS = np.zeros((24, 14), np.int8)
LABELS[np.arange(24), np.arange(24) % 14] = 1
LABELS[5] = 0


def _names(count=24):
    return [f"{number:08}_000.png" for number in range(count)]


def _text(columns=CHEST_XRAY_CLASSES, labels=LABELS, extra=()):
    header = ("FileName", *columns, *extra)
    rows = [(name, *row, *extra) for name, row in zip(_names(), labels, strict=True)]
    return "".join(",".join(map(str, row)) + "\n" for row in [header, *rows])


def _folder(path, text=None):
    images = path / "images" / "images"
    images.mkdir(parents=True)
    for name in _names():
        Image.new("L", (2, 2)).save(images / name)
    (path / "train_label.csv").write_text(_text() if text is None else text)
    return path


def test_every_row_with_a_finding_is_read(tmp_path):
    records = chest_xray("train", root=_folder(tmp_path))
    assert records.class_names == CHEST_XRAY_CLASSES
    np.testing.assert_array_equal(records.labels, np.delete(LABELS, 5, axis=0))
    folder = tmp_path / "images" / "images"
    assert records.images == [str(folder / name) for name in np.delete(_names(), 5)]


def test_images_without_finding_can_be_kept(tmp_path):
    records = chest_xray("train", root=_folder(tmp_path), keep_without_finding=True)
    np.testing.assert_array_equal(records.labels, LABELS)


def test_columns_are_found_by_name(tmp_path):
    text = _text(CHEST_XRAY_CLASSES[::-1], LABELS[:, ::-1], extra=("Age",))
    records = chest_xray("train", root=_folder(tmp_path, text), keep_without_finding=True)
    np.testing.assert_array_equal(records.labels, LABELS)


def test_columns_can_be_taken_by_position(tmp_path):
    columns = [f"finding {number}" for number in range(14)]
    root = _folder(tmp_path, _text(columns, extra=("Age",)))
    records = chest_xray("train", root=root, class_names=None, keep_without_finding=True)
    assert records.class_names == tuple(columns)
    np.testing.assert_array_equal(records.labels, LABELS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            _text().replace("00000002_000.png,0", "00000002_000.png,2"),
            "line 4: Atelectasis: got '2'",
        ),
        (_text().replace("00000003_000.png,", "00000003_000.png,0,"), "line 5: got 16 cells"),
        (_text().replace("00000004", "90000004"), "line 6: there is no image file .*90000004_000"),
        (_text().replace("00000006", "00000004"), "line 8: 00000004_000.png is already in line 6"),
        (_text().replace("Hernia", "Mass"), "line 1: a column occurs twice"),
        (_text().replace("Hernia", "hernia"), "line 1: there is no column Hernia"),
        ("", "line 1: there is no header"),
    ],
)
def test_bad_rows_are_reported_with_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"train_label.csv, {message}"):
        chest_xray("train", root=_folder(tmp_path, text))


def test_too_few_columns_for_positions_are_reported(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: got 14 columns, expected the file name and 14"):
        chest_xray(
            "train",
            root=_folder(tmp_path, _text(CHEST_XRAY_CLASSES[:13], LABELS[:, :13])),
            class_names=None,
        )


def test_split_without_any_finding_is_named(tmp_path):
    root = _folder(tmp_path, _text(labels=np.zeros_like(LABELS)))
    with pytest.raises(
        ValueError, match=r"train_label.csv: none of the 24 images .*'train'.*keep_"
    ):
        chest_xray("train", root=root)


def test_missing_split_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"val_label.csv: no such file"):
        chest_xray("val", root=_folder(tmp_path))
