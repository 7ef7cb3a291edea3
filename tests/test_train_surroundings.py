"""What a run does when files, disks, signals and other runs come in its way."""

import os
import shutil
import signal
import warnings

import pytest

from mljax.checkpoints.manifest import MANIFEST, sealed, verify
from mljax.train import fit, main
from mljax.training import run_checkpoints
from mljax.training.workdir import hold
from tests import runs, small_configs

_QUICK = (
    *("model.backbone.kwargs.layers=(0, 0, 0, 0)", "train.ema_decay=0", "train.epochs=2"),
    *("train.checkpoint_every_steps=5", "eval.every_epochs=1", "data.augment=()"),
)


def _fit(workdir, *assignments, **options):
    return fit(small_configs.training_config(*_QUICK, *assignments), workdir, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Returns the workdir of twenty steps."""
    workdir = tmp_path_factory.mktemp("surroundings")
    _fit(workdir)
    return workdir


@pytest.fixture
def workdir(reference, tmp_path):
    """Returns a copy that a test may spoil."""
    return shutil.copytree(reference, tmp_path / "run")


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_of_others_do_not_hinder_a_run(workdir):
    for folder in (*sealed(workdir / "checkpoints"), *sealed(workdir / "best"), workdir):
        (folder / ".DS_Store").write_text("x")
    (workdir / "checkpoints" / "99").symlink_to(workdir / "absent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _fit(workdir)["mAP"] > 0
    assert _names(workdir / "checkpoints") == ["10", "15", "20", "99"]


def test_a_run_over_checkpoints_of_which_none_can_be_used_is_refused(workdir, reference):
    for path in sealed(workdir / "checkpoints"):
        (path / MANIFEST).unlink()
    log, best = (workdir / "metrics.jsonl").read_text(), _names(workdir / "best")
    with (
        pytest.warns(UserWarning, match="has no manifest.json"),
        pytest.raises(ValueError, match="unfinished-10.*--restart"),
    ):
        _fit(workdir)
    assert (workdir / "metrics.jsonl").read_text() == log
    assert _names(workdir / "best") == best
    _fit(workdir, restart=True)
    assert runs.read_log(workdir) == runs.read_log(reference)
    before = workdir / "before-restart"
    assert (before / "metrics.jsonl").read_text() == log
    assert _names(before / "best") == best
    assert _names(before / "checkpoints") == ["unfinished-10", "unfinished-15", "unfinished-20"]


def test_going_back_to_an_earlier_checkpoint_loses_nothing(workdir, reference):
    (workdir / "checkpoints" / "20" / "model.json").write_text("{}")
    log = (workdir / "metrics.jsonl").read_text()
    with pytest.warns(UserWarning, match="the one before is used"):
        _fit(workdir)
    assert runs.read_log(workdir) == runs.read_log(reference)
    assert (workdir / "metrics.before-damage.jsonl").read_text() == log
    assert "damaged-20" in _names(workdir / "checkpoints")
    assert _names(workdir / "best") == _names(reference / "best")


def test_a_cut_config_does_not_hinder_a_resume(workdir):
    (workdir / "config.json").write_text("")
    _fit(workdir)
    assert (workdir / "config.json").read_bytes() == (
        workdir / "checkpoints/20/config.json"
    ).read_bytes()


def test_a_second_run_in_the_workdir_touches_nothing(workdir):
    before = {path: path.stat().st_mtime for path in workdir.rglob("*")}
    with hold(workdir), pytest.raises(ValueError, match=f"in use.*process {os.getpid()} on"):
        _fit(workdir, restart=True)
    del before[workdir / "run.lock"]
    found = {path: path.stat().st_mtime for path in before}
    assert found == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_during_the_last_save_ends_with_a_sealed_checkpoint(tmp_path, monkeypatch, number):
    seal = run_checkpoints.seal

    def signal_and_seal(folder, *, step=None):
        if step == 20:
            os.kill(os.getpid(), number)
        seal(folder, step=step)

    monkeypatch.setattr(run_checkpoints, "seal", signal_and_seal)
    assert _fit(tmp_path)["mAP"] > 0
    assert sealed(tmp_path / "checkpoints")[-1].name == "20"
    verify(tmp_path / "checkpoints" / "20")


def test_what_cannot_be_written_fails_before_the_first_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "model.json")

    monkeypatch.setattr(run_checkpoints, "write_description", full)
    with pytest.raises(OSError, match=r"No space left on device: 'model\.json'"):
        _fit(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_dry_run_finds_a_workdir_that_cannot_be_written(tmp_path, capsys):
    config = small_configs.write_training_config(tmp_path)
    (tmp_path / "file").touch()
    assert main(["--config", config, "--workdir", str(tmp_path / "file/run"), "--dry-run"]) == 1
    assert f"{tmp_path / 'file'}" in capsys.readouterr().err
