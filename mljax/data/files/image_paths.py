"""Paths of millions of images: made when they are asked for, checked folder by folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int, Shaped

# Paths that are compared with the listings of their folders at once.
_CHUNK = 2**16


class ImagePaths(Sequence[str]):
    """Paths made of names, which take as many bytes each as the longest of them.

    Args:
      names: bytes strings, such as image ids.
      folder: what comes before the pattern.
      pattern: a path with `{name}`; `{name[0]}` is the name's first character.

    Raises:
      ValueError: for another pattern.
    """

    def __init__(
        self, names: Shaped[np.ndarray, " n"], folder: str | Path, pattern: str = "{name}"
    ) -> None:
        self.names = names
        self.folder = str(folder)
        self.pattern = pattern
        try:
            # No two images may have one path.
            if pattern.format(name="0x") == pattern.format(name="0y"):
                raise ValueError("the same path for two names")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"pattern: got {pattern!r} ({type(error).__name__} {error}), expected a path with "
                "{name}, or {name[0]} for its first character"
            ) from None

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "ImagePaths": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ImagePaths(self.names[index], self.folder, self.pattern)
        path = self.pattern.format(name=self.names[index].item().decode())
        return os.path.join(self.folder, path)

    def take(self, rows: Int[np.ndarray, " r"]) -> "ImagePaths":
        """Returns the paths of some images, in the order given."""
        return ImagePaths(self.names[rows], self.folder, self.pattern)


def present_images(paths: Sequence[str], missing_images: str) -> Int[np.ndarray, " m"]:
    """Returns which of the images are to be read, as their numbers.

    Each folder is listed once, since a question a file is slow on network disks.

    Args:
      paths: of all images.
      missing_images: `fail` raises if an image is missing, `skip` leaves it out, `unchecked` does
        not look.

    Raises:
      ValueError: for another policy, or as it says.
    """
    if missing_images not in ("fail", "skip", "unchecked"):
        raise ValueError(
            f"missing_images: got {missing_images!r}, expected 'fail', 'skip' or 'unchecked'"
        )
    if missing_images == "unchecked":
        return np.arange(len(paths))
    found = _found(paths)
    missing = np.flatnonzero(~found)
    if len(missing) and missing_images == "fail":
        raise ValueError(
            f"{len(missing)} of {len(paths)} images are missing, such as {paths[missing[0]]}; "
            "missing_images='skip' leaves them out"
        )
    return np.flatnonzero(found)


def _found(paths: Sequence[str]) -> Bool[np.ndarray, " n"]:
    listings: dict[str, np.ndarray] = {}
    found = np.zeros(len(paths), bool)
    for start in range(0, len(paths), _CHUNK):
        names: dict[str, list[bytes]] = {}
        rows: dict[str, list[int]] = {}
        for row, path in enumerate(paths[start : start + _CHUNK], start):
            folder, name = os.path.split(path)
            names.setdefault(folder, []).append(os.fsencode(name))
            rows.setdefault(folder, []).append(row)
        for folder in names.keys() - listings.keys():
            listings[folder] = _listing(folder)
        for folder, wanted in names.items():
            listing = listings[folder]
            at = np.minimum(np.searchsorted(listing, np.array(wanted)), len(listing) - 1)
            found[rows[folder]] = listing[at] == np.array(wanted)
    return found


def _listing(folder: str) -> Shaped[np.ndarray, " n"]:
    """Returns the names in a folder as sorted bytes strings; one empty name if there is none."""
    chunks = [np.array([b""])]
    names: list[bytes] = []
    if os.path.isdir(folder):
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(os.fsencode(entry.name))
                if len(names) == _CHUNK:
                    chunks.append(np.array(names))
                    names = []
    if names:
        chunks.append(np.array(names))
    listing = np.concatenate(chunks)
    listing.sort()
    return listing
