"""Runs that a rule ends: what is kept, and what a resume continues."""

import json

import pytest

from mljax.checkpoints.manifest import sealed
from tests import runs, small_configs

# Evaluated every epoch, of ten steps; no figure is so much better than the first.
NEVER = "1000.0"
RULES = (
    "model.backbone.kwargs.layers=(0, 0, 0, 0)",
    "data.augment=()",
    "eval.every_epochs=1",
    "schedule={'name': 'reduce_on_plateau', 'kwargs': {'factor': 0.5, 'patience': 0, "
    f"'cooldown': 1, 'threshold': {NEVER}, 'threshold_mode': 'abs'}}}}",
    f"train.stop={{'name': 'no_improvement', 'kwargs': {{'patience': 3, 'min_delta': {NEVER}}}}}",
)


def _fit(workdir, epochs):
    return runs.train(small_configs.training_config(*RULES, f"train.epochs={epochs}"), workdir)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Returns the workdir of a run that its rule has ended, and what was printed."""
    workdir = tmp_path_factory.mktemp("stopped")
    return workdir, _fit(workdir, epochs=9)[1]


def test_a_run_ends_when_its_rule_says_so(stopped):
    workdir, shown = stopped
    assert "step 50: the stopping rule ends the run" in shown
    rows = [row for row in runs.read_log(workdir) if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 51))
    last = sealed(workdir / "checkpoints")[-1]
    assert last.name == "50"
    progress = json.loads((last / "progress/metadata").read_text())
    assert progress["stopped"] is True
    assert progress["states"]["stop"]["since"] == 4


def test_the_rate_falls_where_a_plateau_is(stopped):
    rows = [row for row in runs.read_log(stopped[0]) if "train/loss" in row]
    rates = [row["train/learning_rate"] for row in rows]
    # A reduction is followed by an evaluation that does not count.
    expected = [1e-2, 1e-2, 0.5e-2, 0.5e-2, 0.25e-2]
    assert rates == [rate for rate in expected for _ in range(10)]


def test_a_run_that_its_rule_has_ended_stays_ended(stopped):
    workdir, _ = stopped
    before = runs.read_log(workdir)
    _, shown = _fit(workdir, epochs=9)
    assert "after step 50" in shown
    assert runs.read_log(workdir) == before


@pytest.mark.slow
def test_rules_survive_a_resume(stopped, tmp_path):
    _fit(tmp_path, epochs=3)
    _fit(tmp_path, epochs=9)
    assert runs.read_log(tmp_path) == runs.read_log(stopped[0])
    found, expected = (runs.read_arrays(w / "checkpoints/50") for w in (tmp_path, stopped[0]))
    assert found.keys() == expected.keys()
    assert all(found[path].tobytes() == expected[path].tobytes() for path in expected)
