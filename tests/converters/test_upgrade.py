"""Checkpoints that mljax 0.1 wrote are upgraded by one command, then load and resume."""

import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

import mljax
from converters.upgrade import main, upgrade
from mljax.checkpoints.checkpoint import read_config
from mljax.checkpoints.manifest import DamagedCheckpointError, verify
from mljax.config import load_config
from tests import runs

FOLDER = Path(__file__).parents[1] / "data" / "checkpoints_0_1"


def _unpack(name, folder):
    with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def test_a_network_of_the_old_version_loads_and_gives_its_logits(tmp_path):
    path = _unpack("zero_shot", tmp_path)
    model = mljax.load_model(path)
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    with np.load(FOLDER / "zero_shot_logits.npz") as expected:
        np.testing.assert_allclose(
            jax.jit(lambda x: model(x)["logits"])(images), expected["logits"], rtol=0, atol=1e-5
        )


def test_its_config_is_refused_with_the_command_that_upgrades_it(tmp_path):
    path = _unpack("zero_shot", tmp_path)
    with pytest.raises(ValueError, match=r"0\.1.*python -m converters\.upgrade"):
        read_config(path)
    assert main([str(path)]) == 0
    verify(path)
    config = read_config(path)
    assert config is not None
    assert config.model.head.name == "ml_decoder"
    assert config.schedule.name == "one_cycle"
    assert main([str(path)]) == 0  # There is nothing left to do.


def test_an_upgraded_run_has_its_hooks_as_parts(tmp_path):
    workdir = _unpack("run", tmp_path)
    assert [path.parent.name for path in upgrade(workdir)] == ["best", "checkpoints"]
    config = load_config(workdir / "config.json")
    assert [chosen.name for chosen in config.train.gradients] == ["micro_batches"]
    assert [chosen.name for chosen in config.train.trackers] == ["class_prior"]
    assert config.data.reader.kwargs["reader"].name == "digits"
    assert config.optimizer.algorithm.name == "torch_adam"
    assert not list(workdir.rglob("recipe.json"))


@pytest.mark.slow
def test_an_upgraded_run_resumes_as_the_old_version_went_on(tmp_path):
    workdir = _unpack("run", tmp_path)
    upgrade(workdir)
    mljax.fit(load_config(workdir / "config.json"), workdir)
    found = runs.read_arrays(workdir / "checkpoints" / "30")
    with np.load(FOLDER / "run_after_step_30.npz") as expected:
        for name, array in expected.items():
            kind, path = name.split("/", 1)
            # The bias of a key moves all scores of a query alike, which no softmax sees: its
            # gradient is rounding alone.
            if path.endswith("attention.key.bias"):
                continue
            path = path.replace("prior.", "trackers.class_prior.")
            got = found[
                f"training['{path}']" if kind == "training" else f"model['{kind}']['{path}']"
            ]
            # Hyperparameters were rounded to float32 on the device, now they are on the host.
            np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_damaged_checkpoint_stays_as_it_is(tmp_path):
    path = _unpack("zero_shot", tmp_path)
    recipe = path / "recipe.json"
    recipe.write_text(recipe.read_text().replace("zero", "none") + " ")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DamagedCheckpointError, match=r"recipe\.json has changed"):
        upgrade(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interruption_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = _unpack("run", tmp_path) / "checkpoints" / "20"

    def fail(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.upgrade.seal", fail)
    with pytest.raises(KeyboardInterrupt):
        upgrade(path)
    verify(path)
    assert [p.name for p in path.parent.iterdir()] == ["20"]


def test_what_is_no_checkpoint_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    shutil.rmtree(tmp_path)
