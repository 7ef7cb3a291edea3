"""VG500 by its published lists."""

import json

import pytest

from mljax.data.readers.vg500 import LABELS, vg500
from tests.data.odd_folders import touch

INDICES = {"1.jpg": [4, 0, 4], "2.jpg": [], "3.jpg": [1]}


def _write(root, lines=("1.jpg", "2.jpg", "3.jpg"), indices=INDICES):
    touch(root, "VG_100K/1.jpg", "VG_100K_2/2.jpg", "images/3.jpg")
    (root / "train_list_500.txt").write_text("\n".join(lines) + "\n")
    (root / LABELS).write_text(json.dumps(indices))
    return root


def test_images_of_all_folders_have_the_numbers_of_their_classes(tmp_path):
    records = vg500("train", root=_write(tmp_path), num_classes=5)
    assert records.class_names == ("0", "1", "2", "3", "4")
    assert records.labels.tolist() == [[1, 0, 0, 0, 1], [0] * 5, [0, 1, 0, 0, 0]]
    folders = ["VG_100K/1.jpg", "VG_100K_2/2.jpg", "images/3.jpg"]
    assert records.images == [str(tmp_path / name) for name in folders]
    assert vg500("train", root=tmp_path).labels.shape == (3, 500)


def test_missing_images_are_counted_or_skipped(tmp_path):
    (_write(tmp_path) / "VG_100K_2/2.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 images are missing, such as .*VG_100K/2.jpg"):
        vg500("train", root=tmp_path)
    assert len(vg500("train", root=tmp_path, missing_images="skip")) == 2


@pytest.mark.parametrize(
    ("lines", "indices", "message"),
    [
        (["1.jpg", "", "9.jpg"], INDICES, "list_500.txt, line 3: .* has no labels of the image"),
        (["1.jpg", "1.jpg"], INDICES, "line 1 and line 2 are the same picture"),
        (["1.jpg"], [], rf"{LABELS}: expected"),
        (["1.jpg"], {"1.jpg": 4}, rf"{LABELS}, image 1.jpg: got 4, expected a list"),
        (["1.jpg"], {"1.jpg": [500]}, "got the class 500, expected a whole number from 0 to 499"),
        (["1.jpg"], {"1.jpg": [True]}, "got the class True, expected a whole number"),
        (["1.jpg"], {"1.jpg": [-1]}, "got the class -1, expected a whole number"),
    ],
)
def test_malformed_files_are_named(tmp_path, lines, indices, message):
    with pytest.raises(ValueError, match=message):
        vg500("train", root=_write(tmp_path, lines, indices))


def test_missing_files_are_named(tmp_path):
    root = _write(tmp_path)
    with pytest.raises(ValueError, match="got split='test', there are lists of train"):
        vg500("test", root=root)
    (root / LABELS).unlink()
    with pytest.raises(ValueError, match=f"{LABELS}: no such file"):
        vg500("train", root=root)
