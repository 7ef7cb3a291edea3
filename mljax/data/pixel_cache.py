"""Resized images kept on the disk: an image file is decoded and resized once, not once an epoch."""

import contextlib
import hashlib
import math
import os
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8

from mljax.config.schema import Preprocessing

# To be raised by whoever changes which pixels `read_image` or `resize_image` make of a file.
_VERSION = 1

_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class PixelCache:
    """A folder of resized images, one file each; any number of processes may share it.

    The name of a file is a digest of what its pixels depend on: the image file's path, size and
    times of change (or its content, where it has no path), how it is decoded and resized, by which
    version of Pillow. So nothing in the folder is out of date, and one folder may serve many data
    sets and sizes. Nothing is removed: delete the folder when it is no longer needed.

    Attributes:
      folder: made when the first image is kept.
      preprocessing: what the images are resized by.
      max_pixels: width times height of the largest image file that is decoded.
    """

    folder: Path
    preprocessing: Preprocessing
    max_pixels: int

    def path(self, source: str | bytes) -> Path | None:
        """Returns where the resized image is kept; None if there is no image file.

        Args:
          source: path of the image file, or its content.
        """
        if isinstance(source, bytes):
            identity = source
        else:
            try:
                file = os.stat(source)
            except (OSError, ValueError):
                return None
            identity = os.fsencode(os.path.abspath(source))
            # The second time is that of a file that was put in the place of another, too.
            identity += f" {file.st_size} {file.st_mtime_ns} {file.st_ctime_ns}".encode()
        asked = self.preprocessing
        how = (asked.height_width, asked.resize, asked.draft, self.max_pixels)
        how += (PIL.__version__, _VERSION)
        digest = hashlib.blake2b(repr(how).encode(), digest_size=20)
        digest.update(identity)
        name = digest.hexdigest()
        return self.folder / name[:2] / name[2:]

    def read(self, path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
        """Returns a resized image, or None if it is not there, damaged, or not to be read."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        shape = (*self.preprocessing.height_width, 3)
        # Slices of a view are no copies.
        view = memoryview(content)
        checksum, pixels = view[:_CHECKSUM_BYTES], view[_CHECKSUM_BYTES:]
        if len(pixels) != math.prod(shape) or checksum != _checksum(pixels):
            return None
        return np.frombuffer(pixels, np.uint8).reshape(shape)

    def keep(self, path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a resized image, whole or not at all.

        Raises:
          OSError: if it cannot be written; the message says what to do.
        """
        content = pixels.tobytes()
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(_checksum(content) + content)
            part.replace(path)
        except OSError as error:
            raise OSError(
                f"{self.folder}: no resized image of {len(content)} bytes can be written "
                f"({error.strerror}): give data.cache a folder that has room for all, or "
                "None"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink()


def _checksum(pixels: bytes | memoryview) -> bytes:
    return zlib.crc32(pixels).to_bytes(_CHECKSUM_BYTES, "little")
