"""Reading image files: what becomes RGB, what is refused, and the numbers a network gets."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mljax.config.schema import Preprocessing
from mljax.data.images import load_image, normalize, read_image, resize_image, to_array
from tests import golden

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
GREY = PIXELS[:, :, 0]


def _png_header(width, height):
    """The start of a PNG file that claims a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (body, pixels)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _grey_in_rgb(grey):
    return np.repeat(grey[:, :, None], 3, axis=2)


def _with_transparent_palette():
    image = Image.fromarray(PIXELS).quantize(8)
    image.info["transparency"] = bytes([0, 128, 255])
    return image, np.asarray(image.convert("RGBA"))[:, :, :3]


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("rgb.png", Image.fromarray(PIXELS), PIXELS),
        ("grey.png", Image.fromarray(GREY), _grey_in_rgb(GREY)),
        (
            "alpha.png",
            Image.fromarray(np.dstack([PIXELS, GREY])),
            PIXELS,
        ),
        (
            "grey_alpha.png",
            Image.fromarray(np.dstack([GREY, GREY]), "LA"),
            _grey_in_rgb(GREY),
        ),
        (
            "bits.png",
            Image.fromarray(GREY > 99),
            _grey_in_rgb(np.where(GREY > 99, 255, 0).astype(np.uint8)),
        ),
        ("palette.png", *_with_transparent_palette()),
        (
            "sixteen.png",
            Image.fromarray(GREY.astype(np.uint16) * 256 + 77),
            _grey_in_rgb(GREY),
        ),
        (
            "sixteen.tif",
            Image.fromarray(GREY.astype(np.int32) * 256 + 77),
            _grey_in_rgb(GREY),
        ),
        (
            "cmyk.tif",
            Image.fromarray(np.dstack([PIXELS, np.zeros_like(GREY)]), "CMYK"),
            255 - PIXELS,
        ),
        ("tiny.png", Image.fromarray(PIXELS[:1, :1]), PIXELS[:1, :1]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_every_kind_of_image_becomes_rgb(tmp_path, name, image, expected):
    image.save(tmp_path / name)
    loaded = load_image(tmp_path / name)
    assert loaded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(loaded), expected)


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red.save(tmp_path / "red.jpg")
    np.testing.assert_allclose(
        np.asarray(load_image(tmp_path / "red.jpg"), np.int16).mean((0, 1)), (255, 0, 0), atol=4
    )


def test_exif_rotation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").size == (8, 4)


def _write_bad_files(folder):
    photo = folder / "photo.jpg"
    Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)).save(photo)
    (folder / "truncated.jpg").write_bytes(photo.read_bytes()[:-200])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "header_only.png").write_bytes(_png_header(10, 10)[:30])
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "bomb.png").write_bytes(_png_header(50_000, 50_000))
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(folder / "float.tif")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "truncated"),
        ("empty.jpg", "cannot identify"),
        ("text.jpg", "cannot identify"),
        ("header_only.png", "Error"),
        ("missing.jpg", "No such file"),
        ("folder.jpg", "a folder, a pipe or a device, expected a file"),
        ("pipe.jpg", "a folder, a pipe or a device, expected a file"),
        ("bomb.png", "more pixels than twice the limit .* raise data.max_pixels"),
        ("float.tif", "no known range"),
    ],
)
def test_bad_file_is_refused_by_name_with_the_reason(tmp_path, name, reason):
    _write_bad_files(tmp_path)
    with pytest.raises(ValueError, match=reason) as error:
        load_image(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize("size", [(8200, 8200), (10_000, 10_000)])
def test_image_above_the_pixel_limit_is_refused_from_its_header(tmp_path, size):
    (tmp_path / "large.png").write_bytes(_png_header(*size))
    with warnings.catch_warnings():
        # Pillow only warns about the larger one.
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels exceed the limit"):
            load_image(tmp_path / "large.png")


def test_pixel_limit_is_an_argument(tmp_path):
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", max_pixels=100).size == (10, 10)
    with pytest.raises(ValueError, match="exceed the limit of 99"):
        load_image(tmp_path / "a.png", max_pixels=99)


def test_array_is_squashed_and_scaled_to_the_unit_interval():
    image = Image.fromarray(PIXELS)
    array = to_array(image, Preprocessing(image_size=4))
    expected = np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR), np.float64) / 255
    assert (array.shape, array.dtype) == ((4, 4, 3), np.float32)
    np.testing.assert_array_equal(array, expected.astype(np.float32))


def test_resize_filter_is_the_one_asked_for():
    image, size = Image.fromarray(PIXELS), (3, 3)
    result = resize_image(image, Preprocessing(image_size=3, resize="bicubic"))
    assert result.tobytes() == image.resize(size, Image.Resampling.BICUBIC).tobytes()
    assert result.tobytes() != image.resize(size, Image.Resampling.BILINEAR).tobytes()


@pytest.mark.parametrize("case", range(4))
def test_opencvs_filter_gives_the_published_pixels(case):
    arrays = golden.arrays("aam_aug", "resize")
    expected = arrays[f"out{case}"]
    preprocessing = Preprocessing(image_size=expected.shape[:2], resize="cv2_bilinear")
    result = resize_image(Image.fromarray(arrays[f"in{case}"]), preprocessing)
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_opencvs_filter_then_scaling_give_the_published_array():
    arrays = golden.arrays("aam_aug", "test_transform")
    preprocessing = Preprocessing(
        image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3, resize="cv2_bilinear"
    )
    result = to_array(Image.fromarray(arrays["image"]), preprocessing)
    np.testing.assert_array_equal(result, arrays["out"].transpose(1, 2, 0))


@pytest.mark.parametrize("case", golden.names("mlgcn_crop", "warp"))
def test_pillows_filter_then_scaling_give_the_published_array(case):
    arrays, row = golden.arrays("mlgcn_crop", case), golden.cases("mlgcn_crop")[case]
    image = Image.fromarray(golden.fill_input(*row["inputs"]["img"]["fill"]).astype(np.uint8))
    preprocessing = Preprocessing(
        image_size=row["hyper"]["size"], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    np.testing.assert_array_equal(resize_image(image, preprocessing), arrays["warped"])
    result = to_array(image, preprocessing)
    np.testing.assert_allclose(result, arrays["tensor"].transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5)])
def test_opencvs_filter_takes_images_of_any_size(size):
    grey = Image.new("RGB", (1, 3), (9, 200, 255))
    result = resize_image(grey, Preprocessing(image_size=size, resize="cv2_bilinear"))
    np.testing.assert_array_equal(np.asarray(result), np.full((*size, 3), (9, 200, 255)))


def test_image_of_the_right_size_is_not_copied():
    image = Image.fromarray(PIXELS[:5])
    assert resize_image(image, Preprocessing(image_size=5)) is image


def test_mean_and_std_are_applied_by_channel():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    array = normalize(PIXELS, Preprocessing(image_size=1, mean=mean, std=std))
    expected = (PIXELS / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(array, expected, rtol=2e-6, atol=2e-7)


def test_every_byte_scales_as_in_torchvision():
    torch = pytest.importorskip("torch")
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = torch.from_numpy(ramp).to(torch.float32).div(255)
    expected = expected.sub_(torch.tensor([0.1, 0.2, 0.3])).div_(torch.tensor([0.3, 0.6, 0.9]))
    array = normalize(ramp, Preprocessing(image_size=16, mean=(0.1, 0.2, 0.3), std=(0.3, 0.6, 0.9)))
    np.testing.assert_array_equal(array, expected.numpy())


@pytest.mark.parametrize("case", golden.names("mlgcn_crop", "warp"))
def test_a_squashed_image_is_that_of_ml_gcn(case):
    row, expected = golden.cases("mlgcn_crop")[case], golden.arrays("mlgcn_crop", case)
    pixels = golden.fill_input(*row["inputs"]["img"]["fill"]).astype(np.uint8)
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    preprocessing = Preprocessing(image_size=row["hyper"]["size"], **imagenet)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(resize_image(image, preprocessing), expected["warped"])
    found = to_array(image, preprocessing).transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected["tensor"], atol=1e-6)


@pytest.mark.parametrize(("side", "found"), [(64, (64, 96)), (65, (128, 192)), (999, (256, 384))])
def test_a_draft_is_the_smallest_that_is_large_enough(tmp_path, side, found):
    path = tmp_path / "a.jpg"
    Image.linear_gradient("L").resize((384, 256)).convert("RGB").save(path)
    image, _ = read_image(path, enough=(side, side))
    assert image.size == found[::-1]
    # A photo's colors hardly move.
    whole = np.asarray(read_image(path)[0].resize(image.size), float)
    assert np.abs(np.asarray(image) - whole).mean() < 2


def test_only_jpeg_files_have_drafts(tmp_path):
    Image.new("RGB", (64, 64), (9, 8, 7)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", enough=(8, 8))[0].size == (64, 64)
