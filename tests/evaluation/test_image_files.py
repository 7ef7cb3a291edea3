"""Which files folders stand for."""

import os
import shutil

import pytest
from PIL import Image

from mljax.evaluation.image_files import find_image_files, find_images, show_path
from tests.photos import save_photo


def _names(folder):
    return [os.path.relpath(path, folder) for path in find_images([str(folder)])]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPEG", ".avif", ".jp2", ".tga", ".mpo"])
def test_every_suffix_that_pillow_reads_is_an_image(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"")
    assert _names(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("name", ["notes.txt", "a.pdf", "film.mpg", "data.h5"])
def test_what_pillow_does_not_decode_is_passed_over_and_listed(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    save_photo(tmp_path / "a.png")
    found = find_image_files([str(tmp_path)])
    assert found.images == [str(tmp_path / "a.png")]
    assert found.others == [str(tmp_path / name)]


@pytest.mark.parametrize("name", ["photo", "scan.001"])
def test_a_file_without_suffix_is_known_by_its_content(tmp_path, name):
    save_photo(tmp_path / "a.png").rename(tmp_path / name)
    (tmp_path / "LICENSE").write_text("no image")
    found = find_image_files([str(tmp_path)])
    assert found.images == [str(tmp_path / name)]
    assert found.others == [str(tmp_path / "LICENSE")]


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path):
    path = tmp_path / ".notes.txt"
    path.write_text("no image")
    assert find_images([str(path)]) == [str(path)]


def test_hidden_files_and_folders_are_passed_over_and_listed(tmp_path):
    save_photo(tmp_path / "x.jpg")
    shutil.copy(tmp_path / "x.jpg", tmp_path / "._x.jpg")
    save_photo(tmp_path / ".thumbnails" / "x.jpg")
    found = find_image_files([str(tmp_path)])
    assert found.images == [str(tmp_path / "x.jpg")]
    assert found.hidden == [str(tmp_path / "._x.jpg"), str(tmp_path / ".thumbnails")]


def test_links_are_followed_and_loops_end(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    save_photo(folder / "a.png")
    save_photo(other / "b.png")
    (folder / "there").symlink_to(other)
    (other / "back").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    (folder / "c.png").symlink_to(other / "b.png")
    assert _names(folder) == ["a.png", "c.png", "there/b.png"]


def test_a_broken_link_with_an_images_name_is_kept_to_be_reported(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert _names(tmp_path) == ["a.png"]


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    found = find_image_files([str(tmp_path)])
    assert (found.images, found.others) == ([str(tmp_path)], [str(tmp_path / "a.png")])


def test_a_picture_too_large_for_pillow_is_an_image_all_the_same(tmp_path, monkeypatch):
    save_photo(tmp_path / "a.png").rename(tmp_path / "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert _names(tmp_path) == ["a"]


def test_bytes_that_are_no_utf_8_are_escaped_to_be_shown():
    assert show_path(os.fsdecode("café".encode("latin-1"))) == r"caf\xe9"
    assert show_path("café") == "café"
