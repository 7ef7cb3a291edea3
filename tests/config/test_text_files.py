"""Text files that appear complete or not at all."""

import errno
import os

import pytest

from mljax.config.text_files import named, write_text


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    write_text(tmp_path / "a.txt", "é 猫\n")
    assert (tmp_path / "a.txt").read_bytes() == "é 猫\n".encode()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_names_it(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "a.txt"
    write_text(file, "old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=f"No space left on device: '{file}'"):
        write_text(file, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_text_that_is_no_unicode_is_refused_with_the_file(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path / 'a.txt'}: cannot be written as UTF-8"):
        write_text(tmp_path / "a.txt", "\udcff")
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_has_a_path_keeps_it(tmp_path):
    error = OSError(errno.EACCES, "Permission denied", "/other")
    assert named(error, tmp_path) is error
