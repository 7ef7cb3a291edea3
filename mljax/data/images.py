"""One image file: decoded to RGB, squashed to a square, turned into numbers.

Files are read as the published systems read them: by Pillow, without applying the EXIF rotation,
without opening colour profiles. What those systems would stumble over (sixteen bits a channel,
images too large for memory) has its own rule here.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mljax.config.schema import Preprocessing

# 8192 x 8192; 192 MiB once decoded. A few kilobytes of PNG can claim billions of pixels.
MAX_PIXELS = 2**26

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def load_image(
    source: str | Path | bytes, *, name: str = "", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes an image file to RGB.

    Grey, palette, CMYK and other images are converted by Pillow's rules; an alpha channel is
    dropped; of sixteen-bit grey the high byte is kept.

    Args:
      source: path of the file, or its content.
      name: of the image, for messages; empty takes the path.
      max_pixels: largest width times height that is decoded; read from the header.

    Raises:
      ValueError: if the file is missing, empty, truncated, no image, or too large; the message
        begins with its name.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise ValueError(
                    f"its {image.width} x {image.height} pixels exceed the limit of {max_pixels}; "
                    "make the file smaller, or raise max_pixels if you trust it"
                )
            image.load()
        return _to_rgb(image)
    # Decoders raise whatever their parsing trips over: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise ValueError(
            f"{name or source!s}: cannot be read as an image ({type(error).__name__}: {error})"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BITS:
        # Pillow's own conversion would clip at 255 and leave a white image.
        high_byte = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(high_byte.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 bits a channel")
    if image.mode == "P":
        # Straight to RGB, Pillow warns about palettes with transparency; the colours are the same.
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize_image(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Squashes an image to the square that the network reads, as torchvision's Resize((s, s))."""
    size = (preprocessing.image_size, preprocessing.image_size)
    return image if image.size == size else image.resize(size, _FILTERS[preprocessing.resize])


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


def to_array(image: Image.Image, preprocessing: Preprocessing) -> Float[np.ndarray, "s s 3"]:
    """Returns the array that a network reads: resized, scaled to [0, 1], normalized."""
    return normalize(np.asarray(resize_image(image, preprocessing)), preprocessing)
