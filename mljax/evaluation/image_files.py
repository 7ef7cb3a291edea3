"""Image files that files, folders and globs stand for."""

import functools
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageFile


@dataclass(kw_only=True)
class ImageFiles:
    """Image files, and what lies beside them.

    Attributes:
      images: paths, each once.
      others: paths of files in the folders that are no images, by name or content.
      hidden: paths of files and folders in the folders whose names begin with a dot.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


def find_images(patterns: Sequence[str]) -> list[str]:
    """Returns the image files that files, folders and globs stand for; see `find_image_files`."""
    return find_image_files(patterns).images


def find_image_files(patterns: Sequence[str]) -> ImageFiles:
    """Returns the image files that files, folders and globs stand for, each once.

    A folder stands for all images in it and below it, sorted: files with a suffix that Pillow
    reads, and files without a suffix whose content Pillow reads. Links are followed; a folder that
    several links lead to is read once. What stands for nothing is returned as it is, so that it is
    reported as an image that cannot be read.
    """
    found = ImageFiles()
    for pattern in patterns:
        matches = [Path(pattern)]
        if not matches[0].exists():
            matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        for match in matches:
            if match.is_dir():
                below = ImageFiles()
                _walk(match, below, set())
                found.images += sorted(below.images, key=Path) or [str(match)]
                found.others += below.others
                found.hidden += below.hidden
            else:
                found.images.append(str(match))
        if not matches:
            found.images.append(pattern)
    for name in ("images", "others", "hidden"):
        setattr(found, name, list(dict.fromkeys(getattr(found, name))))
    return found


def show_path(path: str) -> str:
    r"""Returns a path as text that can be printed: bytes that are no UTF-8 become `\xff`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk(folder: Path, found: ImageFiles, seen: set[tuple[int, int]]) -> None:
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in seen:
        return
    seen.add(identity)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        # Reported as an image that cannot be read, with the reason.
        found.images.append(str(folder))
        return
    for name in names:
        path = folder / name
        if name.startswith("."):
            found.hidden.append(str(path))
        elif path.is_dir():
            _walk(path, found, seen)
        else:
            (found.images if _is_image(path) else found.others).append(str(path))


def _is_image(path: Path) -> bool:
    """Returns whether a file is to be read; a broken link with an image's name is, and fails."""
    if path.exists() and not path.is_file():
        return False
    suffix = path.suffix.lower()
    # `scan.001` has a number, no suffix.
    if suffix[1:2].isalpha():
        return suffix in _suffixes()
    try:
        with Image.open(path):
            return True
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    # Pillow's plug-ins raise whatever they trip over.
    except Exception:
        return False


@functools.cache
def _suffixes() -> frozenset[str]:
    """Returns the suffixes of the formats that Pillow decodes, not only recognizes."""
    suffixes = Image.registered_extensions()
    stubs = {
        name
        for name, (factory, _) in Image.OPEN.items()
        if isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
    }
    # Of a film, Pillow tells no more than the size; an MPO file is opened as JPEG.
    decoded = (Image.OPEN.keys() - stubs - {"MPEG"}) | {"MPO"}
    return frozenset(suffix for suffix, name in suffixes.items() if name in decoded)
