"""One array out of a numpy or torch file."""

from pathlib import Path

import numpy as np

from converters.files.safe_load import check_kind, read_file
from mljax.data.files.npy import read_npy


def read_array(path: Path) -> np.ndarray:
    """Returns the one array of a `.npy` file, or the one tensor of a torch file, widened.

    Raises:
      ValueError: if the file cannot be read or holds something else.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed, for a torch file.
    """
    check_kind(path)
    if path.suffix == ".npy":
        return read_npy(path, "one array")
    _, content = read_file(path)
    if not hasattr(content, "detach"):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected one array")
    return content.detach().float().numpy()
