"""One image file: decoded to RGB, resized, turned into numbers.

Files are read as the published systems read them: by Pillow, without applying the EXIF rotation,
without opening colour profiles. What those systems would stumble over (sixteen bits a channel,
images too large for memory) has its own rule here.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from mljax.config.schema import MAX_PIXELS, Preprocessing
from mljax.data import opencv

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_TOO_LARGE = (
    "make the file smaller, or if you trust it, raise data.max_pixels (of a config; --max-pixels "
    "of predict)"
)
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def load_image(
    source: str | Path | bytes, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes an image file to RGB.

    Grey, palette, CMYK and other images are converted by Pillow's rules; an alpha channel is
    dropped. Of grey with more than eight bits, the high byte of the file's range is kept: of the
    least of 8, 10, 12, 14, 16, ... bits that hold its largest value. A file that uses all of
    sixteen bits loses its low byte; any other, such as one of twelve bits, causes a warning.

    Args:
      source: path of the file, or its content.
      name: of the image, for messages; empty takes the path.
      max_pixels: largest width times height that is decoded; read from the header. Pillow's own
        limit is raised to it, if that is lower.

    Raises:
      ValueError: if the file is missing, empty, truncated, no image, or too large; the message
        begins with its name.
    """
    image, note = read_image(source, name=name, max_pixels=max_pixels)
    if note:
        warnings.warn(note, stacklevel=2)
    return image


def read_image(
    source: str | Path | bytes,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    enough: tuple[int, int] | None = None,
) -> tuple[Image.Image, str]:
    """Returns what `load_image` returns and what it would warn of, which begins with the name.

    Args:
      source: see `load_image`.
      name: see `load_image`.
      max_pixels: see `load_image`.
      enough: (height, width); a JPEG is decoded at a half, a quarter or an eighth of its size if
        that is no smaller. None decodes it whole.

    Raises:
      ValueError: as `load_image`.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        if not isinstance(source, bytes) and not os.path.isfile(source) and os.path.exists(source):
            # Opening a pipe waits for what writes into it.
            raise ValueError("a folder, a pipe or a device, expected a file")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise ValueError(
                    f"its {image.width} x {image.height} pixels exceed the limit of {max_pixels}; "
                    f"{_TOO_LARGE}"
                )
            # Decoding leaves no trace of how many bits a channel had.
            deep = image.mode in ("RGB", "RGBA", "LA") and ";16" in str(image.tile)
            if enough is not None:
                image.draft(None, (enough[1], enough[0]))
            image.load()
        rgb, note = _to_rgb(image)
    except Image.DecompressionBombError as error:
        # Of more than twice the pixels, which Pillow does not even open.
        raise ValueError(
            f"{name}: cannot be read as an image: more pixels than twice the limit of "
            f"{Image.MAX_IMAGE_PIXELS}; {_TOO_LARGE}"
        ) from error
    # Decoders raise whatever their parsing trips over: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise ValueError(
            f"{name}: cannot be read as an image ({type(error).__name__}: {error})"
        ) from error
    if deep and (largest := int(np.asarray(rgb).max())) < 64:
        note = (
            f"of sixteen bits a channel the high bytes are kept, and they are {largest} at "
            "most: a picture that is nearly black; save it with 8 bits a channel"
        )
    return rgb, f"{name}: {note}" if note else ""


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Returns the image and a note on what a guess made of its values, or no text."""
    if image.mode == "RGB":
        return image, ""
    if image.mode in _SIXTEEN_BITS:
        # Pillow's own conversion would clip at 255 and leave a white image.
        values, note = _high_byte(np.asarray(image))
        return Image.fromarray(values).convert("RGB"), note
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 bits a channel")
    if image.mode == "P":
        # Straight to RGB, Pillow warns about palettes with transparency; the colours are the same.
        image = image.convert("RGBA")
    return image.convert("RGB"), ""


def _high_byte(values: Shaped[np.ndarray, "h w"]) -> tuple[UInt8[np.ndarray, "h w"], str]:
    """Returns the upper eight bits of the range that the values use, and a note if it was guessed.

    See `load_image`.
    """
    lowest, largest = int(values.min()), int(values.max())
    # Cameras and scanners have an even number of bits.
    bits = max(8, -(-largest.bit_length() // 2) * 2)
    notes = []
    if bits != 16 and largest > 0:
        notes.append(f"its largest value is {largest}, so it is read as grey of {bits} bits")
    if lowest < 0:
        notes.append(f"its values below 0, down to {lowest}, are read as 0")
    high = (np.maximum(values, 0).astype(np.int64) >> (bits - 8)).astype(np.uint8)
    return high, "; ".join(notes)


def resize_image(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Squashes an image to the size that the network reads, as torchvision's Resize((h, w))."""
    height, width = preprocessing.height_width
    size = (width, height)
    if image.size == size:
        return image
    if preprocessing.resize == "cv2_bilinear":
        return Image.fromarray(opencv.resize_bilinear(np.asarray(image), height, width))
    return image.resize(size, _FILTERS[preprocessing.resize])


def normalize(
    pixels: UInt8[np.ndarray, "*b h w 3"], preprocessing: Preprocessing
) -> Float[np.ndarray, "*b h w 3"]:
    """Returns `(pixels / 255 - mean) / std` in float32.

    The order of the operations is that of torchvision's ToTensor and Normalize, so the numbers
    are the same to the last bit.
    """
    out = np.divide(pixels, np.float32(255), dtype=np.float32)
    # Whole lines at a time: numpy is several times slower on a last axis of three.
    lines = out.reshape(*out.shape[:-2], -1)
    if any(preprocessing.mean):
        lines -= np.tile(np.asarray(preprocessing.mean, np.float32), out.shape[-2])
    if any(value != 1 for value in preprocessing.std):
        lines /= np.tile(np.asarray(preprocessing.std, np.float32), out.shape[-2])
    return out


def to_array(image: Image.Image, preprocessing: Preprocessing) -> Float[np.ndarray, "h w 3"]:
    """Returns the array that a network reads: resized, scaled to [0, 1], normalized."""
    return normalize(np.asarray(resize_image(image, preprocessing)), preprocessing)
