"""Paths made from names, and the search for missing files."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from mljax.data.files import image_paths
from mljax.data.files.image_paths import ImagePaths, present_images

NAMES = np.array([b"a1", b"b2", b"c34"])


def test_paths_are_made_of_folder_and_pattern():
    paths = ImagePaths(NAMES, "/data", "train_{name[0]}/{name}.jpg")
    assert isinstance(paths, Sequence)
    assert list(paths) == [
        "/data/train_a/a1.jpg",
        "/data/train_b/b2.jpg",
        "/data/train_c/c34.jpg",
    ]
    assert paths[-1] == "/data/train_c/c34.jpg"
    assert list(paths[1:]) == list(paths)[1:]
    assert list(paths.take(np.array([2, 0]))) == [paths[2], paths[0]]


def test_folder_may_have_braces():
    assert ImagePaths(NAMES, "/{x}")[0] == "/{x}/a1"


def test_paths_travel_to_workers():
    paths = ImagePaths(NAMES, "/data")
    assert list(pickle.loads(pickle.dumps(paths))) == list(paths)


@pytest.mark.parametrize("pattern", ["{id}.jpg", "{}.jpg", "{name.x}.jpg", "{name"])
def test_other_patterns_are_refused(pattern):
    with pytest.raises(ValueError, match="pattern: got .* expected a path with {name}"):
        ImagePaths(NAMES, "/data", pattern)


@pytest.fixture(params=[2**16, 2])
def paths(request, tmp_path, monkeypatch):
    """Returns paths in two folders; the second and the last do not exist."""
    monkeypatch.setattr(image_paths, "_CHUNK", request.param)
    for name in ("x/1.jpg", "x/30.jpg", "x/other.jpg", "y/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ("x/30.jpg", "y/1.jpg", "y/2.jpg", "x/1.jpg", "z/1.jpg")
    return [str(tmp_path / name) for name in names]


def test_missing_images_are_skipped(paths):
    assert present_images(paths, "skip").tolist() == [0, 2, 3]


def test_missing_images_are_counted(paths):
    with pytest.raises(ValueError, match="2 of 5 images are missing, such as .*y/1.jpg"):
        present_images(paths, "fail")
    assert present_images(paths[2:4], "fail").tolist() == [0, 1]


def test_images_are_not_looked_for_unless_asked(paths):
    assert present_images(paths, "unchecked").tolist() == [0, 1, 2, 3, 4]


def test_another_policy_is_refused(paths):
    with pytest.raises(ValueError, match="missing_images: got 'drop', expected 'fail', 'skip'"):
        present_images(paths, "drop")
