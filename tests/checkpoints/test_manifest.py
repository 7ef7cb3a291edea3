"""A checkpoint is refused when a byte of it has changed, and the file is named."""

import errno
import pathlib

import numpy as np
import pytest

from mljax.checkpoints.checkpoint import (
    load_model,
)
from mljax.checkpoints.manifest import (
    MANIFEST,
    DamagedCheckpointError,
    check_step,
    seal,
    sealed,
    verify,
)


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_any_flipped_bit_is_detected_and_the_file_is_named(copied):
    rng = np.random.default_rng(0)
    # Each file, then as many at random.
    files = _files(copied)
    chosen = files + [files[i] for i in rng.integers(len(files), size=100)]
    for path in chosen:
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(DamagedCheckpointError) as error:
            verify(copied)
        assert f"{path.relative_to(copied)} " in str(error.value)
        assert str(copied) in str(error.value)
        path.write_bytes(content)
    verify(copied)


def test_damaged_checkpoint_is_not_loaded(copied):
    path = max(_files(copied), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=f"{path.name} has changed. Use another copy"):
        load_model(copied)


def test_every_missing_file_is_named(copied):
    for path in _files(copied):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DamagedCheckpointError, match=f"{path.relative_to(copied)} is missing"):
            load_model(copied)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["recipe.json", "progress/metadata", "training/_METADATA"])
def test_an_added_file_that_would_be_read_is_named(copied, name):
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text("x")
    with pytest.raises(DamagedCheckpointError, match=f"{name} was added"):
        load_model(copied)


@pytest.mark.parametrize(
    "name",
    [
        *(".DS_Store", "._model.json", ".gitattributes", "desktop.ini", "notes.txt"),
        *("model/.nfs0000001", "model/.DS_Store", "model/manifest.json", "model/d/._x"),
        *(".cache/huggingface/.gitignore", ".cache/huggingface/download/config.json"),
    ],
)
def test_files_of_others_are_ignored(copied, name):
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_text("x")
    verify(copied)


def test_a_dangling_link_is_ignored(copied):
    (copied / "link").symlink_to(copied / "absent")
    verify(copied)


@pytest.mark.parametrize("name", ["model.json", "manifest.json"])
def test_a_file_that_cannot_be_read_is_no_damage_and_is_named(copied, name, monkeypatch):
    def refuse(path, *_, **__):
        if path == copied / name:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *_, **__)

    opened = pathlib.Path.open
    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(OSError, match=f"{copied / name}") as error:
        verify(copied)
    assert error.value.errno == errno.EIO


def test_a_renamed_checkpoint_of_a_run_is_damaged(tmp_path):
    (tmp_path / "20").mkdir()
    seal(tmp_path / "20", step=20)
    check_step(tmp_path / "20")
    (tmp_path / "20").rename(tmp_path / "40")
    verify(tmp_path / "40")
    with pytest.raises(DamagedCheckpointError, match=f"{tmp_path / '40'} .* holds step 20"):
        check_step(tmp_path / "40")


def test_the_step_in_the_manifest_cannot_be_changed(tmp_path):
    (tmp_path / "20").mkdir()
    seal(tmp_path / "20", step=20)
    file = tmp_path / "20" / MANIFEST
    file.write_text(file.read_text().replace('"step": 20', '"step": 40'))
    with pytest.raises(DamagedCheckpointError, match=f"{MANIFEST} is missing or has changed"):
        verify(tmp_path / "20")


def test_all_problems_are_listed(copied):
    (copied / "README.md").unlink()
    (copied / "config.json").write_text("{}")
    (copied / "recipe.json").write_text("")
    expected = "README.md is missing; config.json has changed; recipe.json was added"
    with pytest.raises(DamagedCheckpointError, match=expected):
        verify(copied)


def test_sealed_folders_are_found_by_step(tmp_path):
    for name in ("9", "10", "11.incomplete", "damaged-12"):
        (tmp_path / name).mkdir()
        seal(tmp_path / name)
    (tmp_path / "13").mkdir()
    assert [path.name for path in sealed(tmp_path)] == ["9", "10"]
    assert sealed(tmp_path / "absent") == []
