"""Made-up photos on disk."""

import numpy as np
from PIL import Image

from mljax.data.readers.digits import CLASS_NAMES


def save_photo(path, seed=0, size=(60, 40)):
    """Writes a smooth random picture; returns its path."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size).save(path)
    return path


def save_photos(folder):
    """Writes 24 photos and a bad one, listed for both splits; returns the change of a config."""
    rows = [",".join(["image", *CLASS_NAMES])]
    for number in range(24):
        save_photo(folder / f"{number}.png", number)
        rows.append(f"{number}.png," + ",".join(str((number + c) % 3 // 2) for c in range(10)))
    (folder / "bad.png").write_bytes(b"no image")
    rows.append("bad.png" + ",1" * 10)
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return f"data.reader={{'name': 'csv', 'kwargs': {{'root': '{folder}'}}}}"
