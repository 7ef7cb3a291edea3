"""A checkpoint is refused when a byte of it has changed, and the file is named."""

import numpy as np
import pytest

from mljax.checkpoints.checkpoint import (
    load_model,
)
from mljax.checkpoints.manifest import DamagedCheckpointError, seal, sealed, verify


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


@pytest.mark.parametrize("name", ["notes.txt", "model/extra", "model/manifest.json"])
def test_added_file_is_named(copied, name):
    (copied / name).write_text("x")
    with pytest.raises(DamagedCheckpointError, match=f"{name} was added"):
        load_model(copied)


def test_all_problems_are_listed(copied):
    (copied / "README.md").unlink()
    (copied / "config.json").write_text("{}")
    (copied / "extra").write_text("")
    expected = "README.md is missing; config.json has changed; extra was added"
    with pytest.raises(DamagedCheckpointError, match=expected):
        verify(copied)


def test_sealed_folders_are_found_by_step(tmp_path):
    for name in ("9", "10", "11.incomplete", "damaged-12"):
        (tmp_path / name).mkdir()
        seal(tmp_path / name)
    (tmp_path / "13").mkdir()
    assert [path.name for path in sealed(tmp_path)] == ["9", "10"]
    assert sealed(tmp_path / "absent") == []
