"""Checkpoint folders: exact, whole or absent, and found again."""

import importlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mljax.checkpoints import checkpoint
from mljax.checkpoints.checkpoint import (
    find_model,
    load_model,
    read_config,
    read_description,
    save_model,
)
from mljax.checkpoints.manifest import MANIFEST, DamagedCheckpointError, seal, verify
from mljax.config import part
from mljax.models.arrays import split_model
from mljax.models.classifier import abstract_model
from tests import networks, small_configs
from tests.checkpoints.conftest import NAMES, PREPROCESSING


def test_loaded_model_is_the_saved_one(saved):
    model = load_model(saved)
    graph, *arrays = split_model(networks.model())
    found, *loaded = split_model(model)
    jax.tree.map(np.testing.assert_array_equal, loaded, arrays)
    assert [str(x.dtype) for x in jax.tree.leaves(loaded)] == ["float32"] * len(
        jax.tree.leaves(arrays)
    )
    assert model.spec == networks.model().spec
    assert model.class_names == NAMES
    assert model.preprocessing == PREPROCESSING


def test_loaded_model_is_in_eval_mode(saved):
    model = load_model(saved)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    before = split_model(model)[2]
    logits = [jax.jit(lambda x, m=m: m(x)["logits"])(images) for m in (model, networks.model())]
    np.testing.assert_array_equal(*logits)
    jax.tree.map(np.testing.assert_array_equal, split_model(model)[2], before)


def test_config_versions_and_card_are_stored(saved):
    assert read_config(saved) == small_configs.config()
    assert set(read_description(saved).versions) == {"mljax", "jax", "flax"}
    assert (saved / "README.md").read_text() == "# A card\n"


def test_model_without_config_names_and_card_is_saved_with_a_short_card(tmp_path):
    path = save_model(tmp_path / "model", networks.model(class_names=None, preprocessing=None))
    model = load_model(path)
    assert (model.class_names, model.preprocessing) == (None, None)
    assert read_config(path) is None
    assert "tresnet_m with a linear head" in (path / "README.md").read_text()


def test_path_that_orbax_takes_for_a_pattern_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\[1\]/b: checkpoints cannot lie under a path with"):
        save_model(tmp_path / "a[1]" / "b", networks.model())
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_not_overwritten(saved):
    before = {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="exists already; name a new folder"):
        save_model(saved, networks.model())
    assert {p: p.read_bytes() for p in saved.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("step", ["write_description", "seal"])
def test_failed_save_leaves_nothing(monkeypatch, tmp_path, step):
    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, step, fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(tmp_path / "model", networks.model())
    assert list(tmp_path.iterdir()) == []


def test_failed_write_of_arrays_leaves_nothing(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(tmp_path / "model", networks.model())
    assert list(tmp_path.iterdir()) == []


def test_leftover_of_a_killed_save_does_not_hinder_the_next(tmp_path):
    leftover = tmp_path / "model.incomplete"
    (leftover / "model").mkdir(parents=True)
    (leftover / "model" / "junk").write_text("junk")
    verify(save_model(tmp_path / "model", networks.model()))
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


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


def test_a_checkpoint_of_version_0_1_says_how_to_upgrade_its_recipe(copied):
    (copied / "config.json").rename(copied / "recipe.json")
    seal(copied)
    with pytest.raises(ValueError, match="python -m converters.upgrade") as error:
        read_config(copied)
    assert str(copied) in str(error.value)


def _own_head(folder, monkeypatch):
    """Saves a network with a head of a module that is then forgotten; returns the folder."""
    source = "from mljax.heads.linear import Linear\n\nclass OwnHead(Linear):\n    pass\n"
    (folder / "own_checkpoint_head.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys.modules["mljax.config.part"], "_PLUGINS", set())
    head = part(importlib.import_module("own_checkpoint_head").OwnHead)
    path = save_model(folder / "model", networks.model(head=head))
    del sys.modules["own_checkpoint_head"]
    sys.modules["mljax.config.part"]._PLUGINS.clear()
    return path


def test_a_network_of_a_plugin_needs_the_plugin(tmp_path, monkeypatch):
    path = _own_head(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="--plugin own_checkpoint_head") as error:
        load_model(path)
    assert 'plugins=("own_checkpoint_head",)' in str(error.value)
    assert "own_checkpoint_head" not in sys.modules
    model = load_model(path, plugins=("own_checkpoint_head",))
    assert type(model.head).__name__ == "OwnHead"
    _, *arrays = split_model(networks.model())
    jax.tree.map(np.testing.assert_array_equal, list(split_model(model)[1:]), arrays)


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
    assert load_model("model").class_names == NAMES


def test_arrays_of_another_type_are_refused_by_name(saved, monkeypatch):
    def half(spec):
        model = abstract_model(spec)
        bias = model.head.linear.bias
        bias.set_value(jax.ShapeDtypeStruct(bias.shape, jnp.bfloat16))
        return model

    monkeypatch.setattr(checkpoint, "abstract_model", half)
    with pytest.raises(DamagedCheckpointError) as raised:
        load_model(saved)
    for fact in (
        "params.head.linear.bias",
        "expected (10,) bfloat16",
        "got (10,) float32",
    ):
        assert fact in str(raised.value)
