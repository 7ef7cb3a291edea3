"""What lies in folders: files by name, pictures by stem, the lists of splits."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image


class Listings:
    """The files of folders, each of which is listed once: a question a file is slow on networks."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, None]] = {}
        self._pictures: dict[str, dict[str, list[str]]] = {}

    def files(self, folder: str | Path) -> dict[str, None]:
        """Returns the names of the files in a folder, hidden ones too; none if it is not there."""
        key = str(folder)
        if key not in self._files:
            self._files[key] = {}
            folder = Path(folder)
            if os.path.isdir(folder):
                with os.scandir(folder) as entries:
                    names = sorted(entry.name for entry in entries if entry.is_file())
                self._files[key] = dict.fromkeys(names)
        return self._files[key]

    def has(self, path: str | Path) -> bool:
        """Returns whether there is such a file."""
        folder, name = os.path.split(path)
        return name in self.files(folder)

    def find(self, folders: Iterable[str | Path], name: str) -> str | None:
        """Returns the path of a file by its name in the first of the folders that has it, or None.

        A name that is nowhere is taken as one of Windows, whose folders end in a backslash.
        """
        for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
            for folder in folders:
                path = os.path.join(folder, spelled)
                if self.has(path):
                    return path
        return None

    def pictures(self, folder: str | Path, stem: str) -> list[str]:
        """Returns the pictures in a folder with a stem, and any suffix that Pillow reads."""
        key = str(folder)
        if key not in self._pictures:
            self._pictures[key] = {}
            suffixes = Image.registered_extensions()
            for name in self.files(folder):
                first, suffix = os.path.splitext(name)
                if suffix.lower() in suffixes:
                    self._pictures[key].setdefault(first, []).append(name)
        return self._pictures[key].get(stem, [])


def one_row_each(paths: Sequence[str], rows: Sequence[str], source: str) -> None:
    """Checks that no picture stands in two rows.

    Args:
      paths: of the pictures.
      rows: how each row is called.
      source: the file that has the rows.

    Raises:
      ValueError: naming both rows and the picture.
    """
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        earlier = first.setdefault(os.path.normpath(path), row)
        if earlier != row:
            raise ValueError(
                f"{source}: {rows[earlier]} and {rows[row]} are the same picture, {path}; keep one "
                "of them"
            )


def split_names(candidates: Sequence[Path], split: str) -> str:
    """Returns which splits have lists, as the end of an error.

    Args:
      candidates: where a list of the split would be; the splits stand in the place of its name.
      split: the one that has no list.
    """
    frames = [path.name.rpartition(split or path.name)[::2] for path in candidates]
    # What stands before a split may itself be the end of what may stand there.
    frames = dict.fromkeys(sorted(frames, key=lambda frame: -len(frame[0])))
    there: dict[str, None] = {}
    for folder in dict.fromkeys(path.parent for path in candidates):
        for name in Listings().files(folder) if split else ():
            for before, after in frames:
                if name.startswith(before) and name.endswith(after) and not name.startswith("."):
                    there[name[len(before) : len(name) - len(after)]] = None
                    break
    lists = f"there are lists of {', '.join(sorted(there))}" if there else "there is no list at all"
    return f"got split={split!r}, {lists}"
