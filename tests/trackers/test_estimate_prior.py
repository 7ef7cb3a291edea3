"""Training with hidden labels, and the class prior that one run leaves for the next."""

import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from mljax.devices.mesh import put_batch
from mljax.losses.prior import read_prior, write_prior
from mljax.train import dry_run
from mljax.training.metric_log import annotated_shares, draw_prior
from mljax.training.run import make_run
from tests import miniature

READER = {
    "name": "partial",
    "kwargs": {
        "reader": "digits",
        "reader_kwargs": {"num_images": 80},
        "method": "random_per_sample",
        "amount": 0.7,
    },
}
IGNORE = {"name": "selective_loss", "kwargs": {"mode": "ignore"}}


def _recipe(*assignments, epochs=2):
    """Returns a recipe of ten steps an epoch, whose schedule does not depend on the epochs."""
    return miniature.training_recipe(
        f"data.reader={READER}",
        f"losses=[{IGNORE}]",
        "train.estimate_prior=True",
        f"train.epochs={epochs}",
        "schedule.epochs=2",
        *assignments,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Returns the workdir of a run without interruption, and what it printed."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, miniature.train(_recipe(), workdir)[1]


def test_the_prior_of_a_run_is_written_in_the_order_of_the_classes(straight):
    workdir, printed = straight
    prior = read_prior(workdir / "prior.csv", miniature.CLASS_NAMES)
    assert ((prior > 0) & (prior < 1)).all()
    assert f"class prior in {workdir / 'prior.csv'}, drawn in {workdir / 'prior.png'}" in printed
    assert (workdir / "prior.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_resumed_run_writes_the_same_prior_to_the_last_digit(straight, tmp_path):
    miniature.train(_recipe(epochs=1), tmp_path)
    first = (tmp_path / "prior.csv").read_text()
    with pytest.warns(UserWarning, match="goes on with a changed recipe: train.epochs"):
        miniature.train(_recipe(), tmp_path)
    text = (straight[0] / "prior.csv").read_text()
    assert (tmp_path / "prior.csv").read_text() == text
    assert text != first


@pytest.mark.slow
def test_a_complete_run_writes_its_prior_again(straight):
    path = straight[0] / "prior.csv"
    before = path.read_bytes()
    path.unlink()
    miniature.train(_recipe(), straight[0])
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_prior_of_one_run_serves_the_next(straight):
    config = _recipe(_selective(straight[0] / "prior.csv"), "train.estimate_prior=False")
    with Console(record=True, width=120) as console:
        dry_run(config, console)
    assert "all parts fit" in console.export_text()


def _selective(path):
    kwargs = {"mode": "selective", "prior": str(path), "prior_threshold": 0.5}
    return f"losses=[{ {'name': 'selective_loss', 'kwargs': kwargs} }]"


def test_the_rows_of_a_prior_belong_to_classes_by_name(tmp_path):
    prior = np.zeros(10, np.float32)
    prior[3] = 1
    names = miniature.CLASS_NAMES
    path, other = tmp_path / "prior.csv", tmp_path / "reversed.csv"
    write_prior(path, names, prior)
    write_prior(other, names[::-1], prior[::-1])
    losses = []
    for file in (path, other):
        config = _recipe(_selective(file), "train.estimate_prior=False")
        run = make_run(config)
        with run.train_batches(0) as batches:
            batch = {k: v for k, v in next(batches).items() if k != "index"}
        _, metrics = run.step(run.state, put_batch(batch, run.mesh), jax.random.key(0))
        losses.append(float(metrics["loss"]))
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
        make_run(_recipe(_selective(path)))


def test_modes_that_read_no_prior_run_without_one(tmp_path):
    losses = _selective(tmp_path / "absent.csv").replace("'selective'", "'negative'")
    assert make_run(_recipe(losses)).total_steps


def test_scores_of_a_partially_annotated_split_say_so(straight, tmp_path):
    reader = {"name": "partial", "kwargs": READER["kwargs"] | {"hidden_split": "val"}}
    config = _recipe(f"data.reader={reader}", "train.estimate_prior=False", epochs=1)
    evaluation, printed = miniature.train(config, tmp_path)
    assert evaluation.partial
    assert "mAP over annotated labels plain" in printed
    assert "only they count" in " ".join(printed.split())
    assert "over annotated labels" not in straight[1]
    assert not (tmp_path / "prior.csv").exists()


def test_shares_count_present_labels_among_all_images():
    labels = np.array([[1, 0, -1], [1, -1, -1], [0, 1, -1], [-1, 1, -1]], np.int8)
    np.testing.assert_array_equal(annotated_shares(labels), [0.5, 0.5, 0])


def test_shares_of_many_images_are_read_from_evenly_spaced_rows():
    labels = np.zeros((1000, 1), np.int8)
    labels[:500] = 1
    assert annotated_shares(labels, most=11)[0] == pytest.approx(5.5 / 11, abs=0.05)


@pytest.mark.parametrize("count", [3, 150])
def test_the_picture_takes_any_number_of_classes_and_any_values(tmp_path, count):
    names = ["a", "$b", *(f"c_{n}^" for n in range(count - 2))]
    values = np.linspace(0, 1, count, dtype=np.float32)
    draw_prior(tmp_path / "prior.png", names, values, np.zeros(count))
    assert (tmp_path / "prior.png").stat().st_size > 1000


def test_without_matplotlib_the_run_ends_with_its_prior(straight, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, printed = miniature.train(_recipe(), straight[0])
    assert "for a picture: pip install 'mljax[plot]'" in printed


def test_the_prior_is_part_of_the_checkpoint(straight):
    arrays = miniature.read_arrays(max((straight[0] / "checkpoints").glob("[0-9]*")))
    (mean,) = [array for path, array in arrays.items() if "prior.mean" in path]
    np.testing.assert_array_equal(mean, read_prior(straight[0] / "prior.csv"))
