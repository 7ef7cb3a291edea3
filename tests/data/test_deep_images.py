"""Pictures of more than eight bits a channel, and what is said of them."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mljax.config.schema import Preprocessing
from mljax.data.images import load_image
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records

GREY = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
GREY[0, 0] = 255


def _load(path, *, grey=True):
    """Returns the grey values and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = np.asarray(load_image(path))
    assert not grey or (image[:, :, 0] == image[:, :, 2]).all()
    return image[:, :, 0], [str(w.message) for w in caught]


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_fewer_bits_than_the_file_holds_are_scaled_with_a_note(tmp_path, bits, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY.astype(np.uint16) << (bits - 8)).save(path)
    grey, notes = _load(path)
    np.testing.assert_array_equal(grey, GREY)
    (note,) = notes
    assert note.startswith(f"{path}: ")
    assert f"{bits} bits" in note and str(255 << (bits - 8)) in note


def test_all_sixteen_bits_lose_the_low_byte_without_a_note(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY.astype(np.uint16) * 256 + 77).save(path)
    grey, notes = _load(path)
    np.testing.assert_array_equal(grey, GREY)
    assert notes == []


def test_a_black_picture_needs_no_note(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    grey, notes = _load(tmp_path / "a.png")
    assert (grey.max(), notes) == (0, [])


def test_thirty_two_bits_are_scaled_by_their_range(tmp_path):
    Image.fromarray(GREY.astype(np.int32) << 20).save(tmp_path / "a.tif")
    grey, notes = _load(tmp_path / "a.tif")
    np.testing.assert_array_equal(grey, GREY)
    assert "28 bits" in notes[0]


def test_negative_values_are_read_as_black_with_a_note(tmp_path):
    values = GREY.astype(np.int32) * 256
    values[1, 1] = -1000
    Image.fromarray(values).save(tmp_path / "a.tif")
    grey, notes = _load(tmp_path / "a.tif")
    assert grey[1, 1] == 0
    assert "-1000" in notes[0]


def _write_png(path, values):
    """Writes color of sixteen bits, which Pillow only reads."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
        )
    )
    return path


@pytest.mark.parametrize(("largest", "noted"), [(4095, True), (65535, False)])
def test_color_of_sixteen_bits_that_is_nearly_black_has_a_note(tmp_path, largest, noted):
    values = np.random.default_rng(0).integers(0, largest + 1, (9, 9, 3))
    _, notes = _load(_write_png(tmp_path / "a.png", values), grey=False)
    assert len(notes) == noted
    assert not noted or "nearly black" in notes[0]


def test_a_limit_above_pillows_own_is_kept(tmp_path, monkeypatch):
    Image.new("RGB", (30, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(tmp_path / "a.png", max_pixels=300).size == (30, 10)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_many_of_them_are_one_warning_and_their_number_at_the_end(tmp_path, num_workers):
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for path in paths[1:]:
        Image.fromarray(GREY.astype(np.uint16) << 4).save(path)
    Image.fromarray(GREY).save(paths[0])
    records = Records(images=paths, labels=np.zeros((5, 1), np.int8), class_names=("a",))
    preprocessing = Preprocessing(image_size=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = {"batch_size": 2, "num_workers": num_workers}
        with eval_batches(records, preprocessing=preprocessing, **options) as batches:
            assert sum(batch["valid"].sum() for batch in batches) == 5
    first, last = (str(w.message) for w in caught if w.category is UserWarning)
    assert first.startswith(f"{paths[1]}: ") and "12 bits" in first
    assert last.startswith("4 images of more than eight bits")
