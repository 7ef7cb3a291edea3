"""ADP in the release's layout: levels, splits, rows without a class, errors with file and line."""

import numpy as np
import pytest
from PIL import Image

from mljax.data.readers.adp import CSV_NAME, IMAGE_FOLDER, LEVELS, adp
from tests.data import npy

# The released file has 43 columns; classes that no level has stand among the others.
COLUMNS = (*LEVELS["L3"].split(), "C.X", "N.G.A")
PRESENT = ("E E.M E.M.S", "C.X", "T", "N N.G N.G.M E.T.C", "G", "")


def _table(present=PRESENT):
    rows = [("Patch Names", *COLUMNS)]
    for number, names in enumerate(present):
        cells = ("1" if name in names.split() else "0" for name in COLUMNS)
        rows.append((f"{number:03}.png_crop_1.png", *cells))
    return "".join(",".join(row) + "\n" for row in rows)


def _folder(path, text=None, **splits):
    (path / IMAGE_FOLDER).mkdir(parents=True)
    (path / "splits").mkdir()
    for number in range(len(PRESENT)):
        Image.new("RGB", (4, 4)).save(path / IMAGE_FOLDER / f"{number:03}.png_crop_1.png")
    (path / CSV_NAME).write_text(_table() if text is None else text)
    for name, rows in ({"train": [3, 0, 1, 2], "test": [4, 5]} | splits).items():
        np.save(path / "splits" / f"{name}.npy", rows)
    return path


def _present(records):
    names = np.array(records.class_names)
    return [" ".join(names[row == 1]) for row in records.labels]


@pytest.mark.parametrize(("level", "count"), [("L1", 9), ("L2", 26), ("L3", 33), ("L3Only", 22)])
def test_levels_have_the_classes_of_the_release(tmp_path, level, count):
    records = adp("train", root=_folder(tmp_path), level=level)
    assert records.class_names == tuple(LEVELS[level].split())
    assert len(set(records.class_names)) == count


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("L1", ["N", "E", "T"]),
        ("L2", ["N N.G", "E E.M", "T"]),
        ("L3", ["E.T.C N N.G N.G.M", "E E.M E.M.S", "T"]),
        ("L3Only", ["E.T.C N.G.M", "E.M.S", "T"]),
    ],
)
def test_rows_of_a_split_keep_its_order_and_need_a_class_of_the_level(tmp_path, level, expected):
    assert _present(adp("train", root=_folder(tmp_path), level=level)) == expected


def test_images_stand_in_their_folder(tmp_path):
    records = adp("test", root=_folder(tmp_path))
    assert records.images == [str(tmp_path / IMAGE_FOLDER / "004.png_crop_1.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_table().replace("000.png_crop_1.png,1", "000.png_crop_1.png,x"), "line 2: E: got 'x'"),
        (_table().replace("001.png_crop_1.png,", "001.png_crop_1.png,0,"), "line 3: got 37 cells"),
        (_table().replace("002.png", "007.png"), "line 4: there is no image file .*007.png_crop"),
        (_table().replace("003.png", "000.png"), "line 2: 000.png_crop_1.png is already in line 5"),
        (_table().replace(",G.O,", ",G.P,").replace("E,", "F,"), "line 1: there is no column E"),
        (_table().replace("Patch Names", "name"), "line 1: .* begins with 'Patch Names'"),
    ],
)
def test_bad_rows_are_reported_with_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"Flat.csv, {message}"):
        adp("train", root=_folder(tmp_path, text))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 6], "entry 1: got row 6, but .* has the rows 0 to 5"),
        ([-1], "entry 0: got row -1"),
        ([1, 0, 1, 0], "entry 2: row 1 is listed twice"),
        ([0.5], "got float64 of shape"),
        ([[1, 2]], "got int64 of shape"),
        (np.array([{}]), "train.npy: not an array saved by numpy.save"),
    ],
)
def test_bad_splits_are_reported(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        adp("train", root=_folder(tmp_path, train=rows))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", npy.archive()], ids=["empty", "zip", "npz"]
)
def test_splits_in_other_files_are_named(tmp_path, content):
    root = _folder(tmp_path)
    (root / "splits" / "train.npy").write_bytes(content)
    with pytest.raises(ValueError, match="train.npy: not an array .* expected a list of row num"):
        adp("train", root=root)


@pytest.mark.parametrize("rows", [np.array([], int), [1, 5]])
def test_split_without_a_patch_of_the_level_is_named(tmp_path, rows):
    root = _folder(tmp_path, train=rows)
    with pytest.raises(ValueError, match="train.npy: none of the . patches .*'train' .* level L3O"):
        adp("train", root=root, level="L3Only")


def test_unknown_split_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"val.npy: no such file; the splits are test, train"):
        adp("val", root=_folder(tmp_path))


def test_unknown_level_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"level: got 'L4', expected one of L1, L2, L3, L3Only"):
        adp("train", root=tmp_path, level="L4")


def test_missing_release_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"ADP_EncodedLabels_Release1_Flat.csv: no such file"):
        adp("train", root=tmp_path)
