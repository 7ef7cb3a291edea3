"""Resizing as OpenCV does it, in numpy."""

import numpy as np
from jaxtyping import Int, UInt8

# Shares of a pixel are integers of this many bits.
_BITS = 11


def resize_bilinear(
    pixels: UInt8[np.ndarray, "h w c"], height: int, width: int
) -> UInt8[np.ndarray, "{height} {width} c"]:
    """Resizes as `cv2.resize(pixels, (width, height))` does, bilinear on 8 bits.

    Every new pixel mixes the four that lie around its center, in fixed-point arithmetic; where the
    image is made smaller, the other pixels are not read (no antialiasing, unlike Pillow's filter of
    that name).

    Args:
      pixels: values in [0, 255].
      height: of the result, in pixels.
      width: of the result, in pixels.
    """
    left, right, shares = _neighbors(pixels.shape[1], width)
    # Beyond the outermost centers, columns are taken whole; rows are mixed with themselves.
    shares[left == right] = (1 << _BITS, 0)
    values = pixels.astype(np.int32)
    values = values[:, left] * shares[:, :1] + values[:, right] * shares[:, 1:]
    upper, lower, shares = _neighbors(pixels.shape[0], height)
    # Each half is cut off before the sum, as the original's vector instructions do.
    values = values >> 4
    above = values[upper] * shares[:, :1, None] >> 16
    below = values[lower] * shares[:, 1:, None] >> 16
    return (above + below + 2 >> 2).astype(np.uint8)


def _neighbors(
    old: int, new: int
) -> tuple[Int[np.ndarray, " new"], Int[np.ndarray, " new"], Int[np.ndarray, "new 2"]]:
    """Returns the two old pixels around each new one, and the share of each in 2**-11."""
    center = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(center).astype(np.int32)
    share = (center - first).astype(np.float32)
    shares = np.stack([1 - share, share], axis=1) * np.float32(1 << _BITS)
    first, second = np.clip([first, first + 1], 0, old - 1)
    return first, second, np.rint(shares).astype(np.int32)
