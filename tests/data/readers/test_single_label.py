"""Readers of single-label data: CIFAR's binary files, a folder a class, single digits."""

import numpy as np
import pytest
from PIL import Image

from mljax.data.readers.cifar import cifar10, cifar100
from mljax.data.readers.class_folders import class_folders
from mljax.data.readers.digits import digits

PIXELS = np.arange(2 * 3 * 32 * 32, dtype=np.int64).reshape(2, -1).astype(np.uint8)


def _write(path, *label_columns):
    labels = np.array(label_columns, np.uint8).T
    np.concatenate([labels, PIXELS], axis=1).astype(np.uint8).tofile(path)


def test_cifar_10_has_planes_of_color_after_the_class(tmp_path):
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    for number in range(1, 6):
        _write(tmp_path / f"data_batch_{number}.bin", [2, 0])
    records = cifar10("train", root=tmp_path)
    assert len(records) == 10
    assert records.class_names == ("airplane", "automobile", "bird")
    np.testing.assert_array_equal(records.labels[:2], [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(records.images[1, 5, 7], PIXELS[1].reshape(3, 32, 32)[:, 5, 7])


def test_cifar_100_has_the_fine_label_second(tmp_path):
    (tmp_path / "fine_label_names.txt").write_text("apple\nbaby\n")
    _write(tmp_path / "test.bin", [9, 9], [1, 0])
    np.testing.assert_array_equal(cifar100("test", root=tmp_path).labels, [[0, 1], [1, 0]])
    (tmp_path / "test.bin").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"test.bin: 3 bytes are no whole number of images"):
        cifar100("test", root=tmp_path)
    with pytest.raises(ValueError, match="split: got 'val', expected one of train, test"):
        cifar100("val", root=tmp_path)


def test_folders_are_the_classes(tmp_path):
    for split, name in (("train", "b"), ("train", "a"), ("val", "b")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("RGB", (3, 3)).save(tmp_path / split / name / "1.png")
        (tmp_path / split / name / "notes.txt").write_text("x")
    records = class_folders("val", root=tmp_path)
    assert records.class_names == ("a", "b")
    np.testing.assert_array_equal(records.labels, [[0, 1]])
    assert records.images == [str(tmp_path / "val" / "b" / "1.png")]
    (tmp_path / "val" / "c").mkdir()
    with pytest.raises(ValueError, match="c not among the classes"):
        class_folders("val", root=tmp_path)
    with pytest.raises(ValueError, match=r"train.c: no image"):
        (tmp_path / "train" / "c").mkdir()
        class_folders("train", root=tmp_path)
    with pytest.raises(ValueError, match="expected a folder for each class"):
        class_folders("test", root=tmp_path)


def test_digits_one_by_one_have_one_label():
    records = digits("val", num_images=40, max_digits=1)
    np.testing.assert_array_equal(records.labels.sum(1), 1)
    with pytest.raises(ValueError, match="max_digits: got 5, expected 1 to 4"):
        digits("val", max_digits=5)
