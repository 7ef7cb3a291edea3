"""Numpy's files: what is read, and errors that name the file."""

import numpy as np
import pytest

from mljax.data.files.npy import read_npy
from tests.data import npy

SAVED = npy.saved(np.arange(6))


def test_array_is_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(SAVED)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy", "numbers"), np.arange(6))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 not a zip file",
        npy.archive(),
        SAVED[:40],
        SAVED[:-1],
        SAVED.replace(b"(6,)", b"(6, "),
        SAVED.replace(b"}", b"'"),
        npy.saved(np.array([{}])),
        b"0\n1\n2\n",
    ],
    ids=["empty", "zip", "npz", "header cut", "data cut", "shape", "header", "objects", "text"],
)
def test_what_is_no_array_is_named(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.npy: not an array saved by .*; expected numbers"):
        read_npy(tmp_path / "a.npy", "numbers")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="a.npy: no such file; expected numbers as .npy"):
        read_npy(tmp_path / "a.npy", "numbers")
