"""Arrays in numpy's files, with errors that name the file."""

import tokenize
import warnings
import zipfile
from pathlib import Path

import numpy as np


def read_npy(path: Path, expected: str) -> np.ndarray:
    """Reads what `numpy.save` wrote.

    Args:
      path: of the file.
      expected: what the file should hold, for the error.

    Raises:
      ValueError: if the file is missing, empty, damaged or of another kind, such as an archive of
        several arrays (.npz) or an array of Python objects.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected {expected} as .npy")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # A file that Python 2 wrote.
            warnings.simplefilter("ignore", UserWarning)
            return np.lib.format.read_array(file, allow_pickle=False)
    # A damaged header does not always end in numpy's own error.
    except (ValueError, TypeError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(
            f"{path}: not an array saved by numpy.save ({error}); expected {expected}"
        ) from None


def read_npz(path: Path, expected: str) -> dict[str, np.ndarray]:
    """Reads what `numpy.savez` wrote: {name: array}.

    Args:
      path: of the file.
      expected: what the file should hold, for the error.

    Raises:
      ValueError: if the file is missing, damaged or of another kind, or holds Python objects.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected {expected} as .npz")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not arrays saved by numpy.savez ({error}); expected {expected}"
        ) from None
