"""Single-label images in a folder a class."""

from pathlib import Path

import numpy as np
from PIL import Image

from mljax.data.files.folders import Listings
from mljax.data.records import Records


def class_folders(split: str, *, root: str | Path, train_split: str = "train") -> Records:
    """Reads `<root>/<split>/<class>/<image>`, as torchvision's ImageFolder.

    The classes are the folders of the training split, in the order of their names.

    Args:
      split: the folder of the split.
      root: the folder of the splits.
      train_split: the split whose folders decide the classes.

    Raises:
      ValueError: for a split that is not there or has no folder of a class, a folder that is none
        of the classes, or one without images.
    """
    root = Path(root).expanduser()
    names, found = (_folders(root / name) for name in (train_split, split))
    if unknown := [name for name in found if name not in set(names)]:
        raise ValueError(f"{root / split}: {', '.join(unknown[:5])} not among the classes of train")
    suffixes, listings = Image.registered_extensions(), Listings()
    images: list[str] = []
    classes: list[int] = []
    for name in found:
        folder = root / split / name
        files = [file for file in listings.files(folder) if Path(file).suffix.lower() in suffixes]
        files = [file for file in files if not file.startswith(".")]
        if not files:
            raise ValueError(f"{folder}: no image")
        images += [str(folder / file) for file in files]
        classes += [names.index(name)] * len(files)
    labels = np.eye(len(names), dtype=np.int8)[classes]
    return Records(images=images, labels=labels, class_names=tuple(names))


def _folders(path: Path) -> list[str]:
    folders = [entry.name for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []
    names = sorted(name for name in folders if not name.startswith("."))
    if not names:
        raise ValueError(f"{path}: expected a folder for each class")
    return names
