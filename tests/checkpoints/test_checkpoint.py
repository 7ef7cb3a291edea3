"""Checkpoint folders: exact, whole or absent, and refused when a byte of them has changed."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mljax.checkpoints import checkpoint
from mljax.checkpoints.checkpoint import (
    MANIFEST,
    DamagedCheckpointError,
    find_model,
    load_model,
    read_description,
    read_recipe,
    save_model,
    seal,
    verify,
)
from mljax.models.classifier import split_model
from tests import miniature

_NAMES = tuple(f"class {c} é" for c in range(10))
_PREPROCESSING = dataclasses.replace(
    miniature.PREPROCESSING, mean=(0.1, 0.2, 0.3), std=(0.5, 1 / 3, 1.0), resize="bicubic"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = miniature.model(class_names=_NAMES, preprocessing=_PREPROCESSING)
    folder = tmp_path_factory.mktemp("checkpoints") / "new" / "model"
    return save_model(folder, model, recipe=miniature.recipe(), card="# A card\n")


@pytest.fixture
def copied(saved, tmp_path):
    """Returns a copy that a test may spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def test_loaded_model_is_the_saved_one(saved):
    model = load_model(saved)
    graph, *arrays = split_model(miniature.model())
    found, *loaded = split_model(model)
    jax.tree.map(np.testing.assert_array_equal, loaded, arrays)
    assert [str(x.dtype) for x in jax.tree.leaves(loaded)] == ["float32"] * len(
        jax.tree.leaves(arrays)
    )
    assert model.spec == miniature.model().spec
    assert model.class_names == _NAMES
    assert model.preprocessing == _PREPROCESSING


def test_loaded_model_is_in_eval_mode(saved):
    model = load_model(saved)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    before = split_model(model)[2]
    logits = [jax.jit(lambda x, m=m: m(x)["logits"])(images) for m in (model, miniature.model())]
    np.testing.assert_array_equal(*logits)
    jax.tree.map(np.testing.assert_array_equal, split_model(model)[2], before)


def test_recipe_versions_and_card_are_stored(saved):
    assert read_recipe(saved) == miniature.recipe()
    assert set(read_description(saved).versions) == {"mljax", "jax", "flax"}
    assert (saved / "README.md").read_text() == "# A card\n"


def test_model_without_recipe_names_and_card_is_saved_with_a_short_card(tmp_path):
    path = save_model(tmp_path / "model", miniature.model(class_names=None, preprocessing=None))
    model = load_model(path)
    assert (model.class_names, model.preprocessing) == (None, None)
    assert read_recipe(path) is None
    assert "tresnet_m with a linear head" in (path / "README.md").read_text()


def test_path_that_orbax_takes_for_a_pattern_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\[1\]/b: checkpoints cannot lie under a path with"):
        save_model(tmp_path / "a[1]" / "b", miniature.model())
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_not_overwritten(saved):
    before = {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="exists already; name a new folder"):
        save_model(saved, miniature.model())
    assert {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("step", ["describe", "seal"])
def test_failed_save_leaves_nothing(monkeypatch, tmp_path, step):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, step, fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(tmp_path / "model", miniature.model())
    assert list(tmp_path.iterdir()) == []


def test_failed_write_of_arrays_leaves_nothing(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(tmp_path / "model", miniature.model())
    assert list(tmp_path.iterdir()) == []


def test_leftover_of_a_killed_save_does_not_hinder_the_next(tmp_path):
    leftover = tmp_path / "model.incomplete"
    (leftover / "model").mkdir(parents=True)
    (leftover / "model" / "junk").write_text("junk")
    verify(save_model(tmp_path / "model", miniature.model()))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


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
    (copied / "recipe.json").write_text("{}")
    (copied / "extra").write_text("")
    expected = "README.md is missing; extra was added; recipe.json has changed"
    with pytest.raises(DamagedCheckpointError, match=expected):
        verify(copied)


def test_checkpoint_of_another_format_is_refused(copied):
    path = copied / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    seal(copied)
    with pytest.raises(DamagedCheckpointError, match="has format 2; this version of mljax reads 1"):
        load_model(copied)


def test_checkpoint_with_an_unknown_field_is_refused(copied):
    path = copied / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": 2}))
    seal(copied)
    with pytest.raises(DamagedCheckpointError, match="model.json cannot be read: .*'scale'"):
        load_model(copied)


def test_folder_without_checkpoint_raises(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "photo.jpg"):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint at {path}: expected a folder"):
            load_model(path)


def _workdir(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / MANIFEST).write_text("")
    return folder


def test_workdir_means_its_best_network(tmp_path):
    workdir = _workdir(tmp_path, "best/9", "best/10", "checkpoints/30")
    (workdir / "best/40").mkdir()
    _workdir(workdir, "best/50.incomplete", "best/60.replaced")
    assert find_model(workdir) == workdir / "best/10"


def test_workdir_without_best_means_its_latest_checkpoint(tmp_path):
    workdir = _workdir(tmp_path, "checkpoints/8", "checkpoints/12", "checkpoints/damaged-16")
    assert find_model(workdir) == workdir / "checkpoints/12"


def test_relative_path_is_found(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    assert load_model("model").class_names == _NAMES
