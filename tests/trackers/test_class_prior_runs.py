"""Training with hidden labels, and the class prior that one run leaves for the next."""

import sys

import numpy as np
import pytest
from rich.console import Console

from mljax.data.readers.digits import CLASS_NAMES
from mljax.trackers.class_prior import read_prior, write_prior
from mljax.train import dry_run
from tests import runs, small_configs

READER = {
    "name": "partial",
    "kwargs": {
        "reader": {"name": "digits", "kwargs": {"num_images": 80}},
        "method": "random_per_sample",
        "amount": 0.7,
    },
}
IGNORE = {"name": "selective_loss", "kwargs": {"mode": "ignore"}}


def _config(*assignments, epochs=2):
    """Returns a config of ten steps an epoch, whose schedule does not depend on the epochs."""
    return small_configs.training_config(
        f"data.reader={READER}",
        f"losses=[{IGNORE}]",
        "train.trackers=[{'name': 'class_prior', 'kwargs': {}}]",
        f"train.epochs={epochs}",
        "schedule.kwargs.epochs=2",
        # Priors need no deep network.
        "model.backbone.kwargs.layers=(0, 0, 0, 0)",
        "data.augment=()",
        *assignments,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Returns the workdir of a run without interruption, and what it printed."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, runs.train(_config(), workdir)[1]


@pytest.mark.slow
def test_the_prior_of_a_run_is_written_in_the_order_of_the_classes(straight):
    workdir, printed = straight
    prior = read_prior(workdir / "prior.csv", CLASS_NAMES)
    assert ((prior > 0) & (prior < 1)).all()
    assert f"class prior in {workdir / 'prior.csv'}, drawn in {workdir / 'prior.png'}" in printed
    assert (workdir / "prior.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_resumed_run_writes_the_same_prior_to_the_last_digit(straight, tmp_path):
    runs.train(_config(epochs=1), tmp_path)
    first = (tmp_path / "prior.csv").read_text()
    _, printed = runs.train(_config(), tmp_path)
    assert "goes on with a changed config: train.epochs\n" in printed
    text = (straight[0] / "prior.csv").read_text()
    assert (tmp_path / "prior.csv").read_text() == text
    assert text != first


@pytest.mark.slow
def test_a_complete_run_writes_its_prior_again(straight):
    path = straight[0] / "prior.csv"
    before = path.read_bytes()
    path.unlink()
    runs.train(_config(), straight[0])
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_prior_of_one_run_serves_the_next(straight):
    config = _config(_selective(straight[0] / "prior.csv"), "train.trackers=[]")
    with Console(record=True, width=120) as console:
        dry_run(config, console)
    assert "all parts fit" in console.export_text()


def _selective(path):
    prior = {"name": "prior_csv", "kwargs": {"path": str(path)}}
    kwargs = {"mode": "selective", "prior": prior, "prior_threshold": 0.5}
    return f"losses=[{ {'name': 'selective_loss', 'kwargs': kwargs} }]"


@pytest.mark.slow
def test_the_rows_of_a_prior_belong_to_classes_by_name(tmp_path):
    prior = np.zeros(10, np.float32)
    prior[3] = 1
    names = CLASS_NAMES
    path, other = tmp_path / "prior.csv", tmp_path / "reversed.csv"
    write_prior(path, names, prior)
    write_prior(other, names[::-1], prior[::-1])
    losses = []
    for file in (path, other):
        config = _config(_selective(file), "train.trackers=[]", "train.epochs=0.1")
        runs.train(config, tmp_path / file.stem)
        losses.append(runs.read_log(tmp_path / file.stem)[0]["train/loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (None, FileNotFoundError, "no such prior"),
        (["cat,0.5"], ValueError, "1 classes for 10 class names"),
    ],
)
def test_a_prior_that_does_not_fit_is_refused_before_the_first_step(tmp_path, rows, error, message):
    path = tmp_path / "prior.csv"
    if rows is not None:
        path.write_text("\n".join(["Classes,avg_pred", *rows]) + "\n")
    with pytest.raises(error, match=message):
        runs.train(_config(_selective(path)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_scores_of_a_partially_annotated_split_say_so(straight, tmp_path):
    reader = {"name": "partial", "kwargs": READER["kwargs"] | {"hidden_split": "val"}}
    config = _config(f"data.reader={reader}", "train.trackers=[]", epochs=1)
    figures, printed = runs.train(config, tmp_path)
    assert figures["partial_labels"] is True
    assert "mAP over annotated labels plain" in printed
    assert "only they count" in " ".join(printed.split())
    assert "over annotated labels" not in straight[1]
    assert not (tmp_path / "prior.csv").exists()


@pytest.mark.slow
def test_without_matplotlib_the_run_ends_with_its_prior(straight, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, printed = runs.train(_config(), straight[0])
    assert "for a picture: pip install 'mljax[plot]'" in printed


@pytest.mark.slow
def test_the_prior_is_part_of_the_checkpoint(straight):
    arrays = runs.read_arrays(max((straight[0] / "checkpoints").glob("[0-9]*")))
    (mean,) = [array for path, array in arrays.items() if "prior.mean" in path]
    np.testing.assert_array_equal(mean, read_prior(straight[0] / "prior.csv"))
