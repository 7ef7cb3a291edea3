"""What the options of a config do to training, and when a run refuses or stops."""

import itertools
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from mljax import train
from mljax.checkpoints.checkpoint import load_model
from mljax.checkpoints.manifest import sealed
from mljax.data.readers.digits import CLASS_NAMES
from mljax.devices.mesh import put_batch
from mljax.evaluators.multilabel import Multilabel
from mljax.models.arrays import split_model
from mljax.train import main
from mljax.training import loop
from mljax.training.preparation import prepare
from mljax.training.schedules import one_cycle
from mljax.training.step import NonFiniteError
from tests import photos, runs, small_configs

# Twenty steps of the small config: a shorter cycle would be another program to compile.
SHORT = ("train.epochs=2", "schedule.kwargs.epochs=6", "train.checkpoint_every_steps=5")

NO_BLOCKS = "model.backbone.kwargs.layers=(0, 0, 0, 0)"


def _fit(workdir, *assignments):
    return runs.train(small_configs.training_config(*SHORT, *assignments), workdir)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Returns the workdir of twenty steps."""
    workdir = tmp_path_factory.mktemp("reference")
    _fit(workdir)
    return workdir


def _spoil(monkeypatch, step):
    """Makes the labels of one step infinite, and so its loss nan."""
    steps = itertools.count(1)

    def put(batch, mesh):
        if next(steps) == step:
            batch = batch | {"labels": np.full_like(batch["labels"], np.inf)}
        return put_batch(batch, mesh)

    monkeypatch.setattr(loop, "put_batch", put)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_and_another_does_not(reference, tmp_path):
    expected = runs.read_log(reference)
    _fit(tmp_path / "same", "train.epochs=1")
    assert runs.read_log(tmp_path / "same")[:10] == expected[:10]
    _fit(tmp_path / "other", "train.epochs=0.1", "seed=1")
    assert runs.read_log(tmp_path / "other")[0]["train/loss"] != expected[0]["train/loss"]


@pytest.mark.slow
def test_a_step_that_is_not_finite_stops_the_run_before_it_is_saved(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        _spoil(patch, 5)
        with pytest.raises(NonFiniteError, match="step 5: asymmetric_loss is nan. The parameters"):
            _fit(tmp_path)
    assert sealed(tmp_path / "checkpoints") == []


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_as_if_nothing_had_been(reference, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        _spoil(patch, 8)
        with pytest.raises(NonFiniteError, match="step 8: "):
            _fit(tmp_path)
    assert [p.name for p in sealed(tmp_path / "checkpoints")] == ["5"]
    _fit(tmp_path)
    found, expected = (runs.read_arrays(w / "checkpoints/20") for w in (tmp_path, reference))
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].tobytes() == array.tobytes(), path
    assert runs.read_log(tmp_path) == runs.read_log(reference)


@pytest.mark.slow
def test_steps_that_are_not_finite_are_left_out_on_demand(monkeypatch, tmp_path):
    _spoil(monkeypatch, 8)
    _, shown = _fit(tmp_path, "train.non_finite=skip")
    assert "1 step was left out: not finite" in shown
    rows = {row["step"]: row for row in runs.read_log(tmp_path) if "train/loss" in row}
    assert [step for step, row in rows.items() if row["train/loss"] is None] == [8]
    arrays = runs.read_arrays(tmp_path / "checkpoints/20")
    assert int(arrays["training['skipped']"]) == 1
    assert all(np.isfinite(array).all() for array in arrays.values())


def _script(monkeypatch, figures):
    """Makes evaluations find these figures, of plain and averaged weights by turns."""
    result, script = Multilabel.result, iter(figures)

    def scripted(self, classes):
        return result(self, classes) | {"mAP": next(script)}

    monkeypatch.setattr(Multilabel, "result", scripted)


@pytest.mark.slow
def test_a_figure_takes_the_place_of_an_undefined_one(monkeypatch, tmp_path):
    _script(monkeypatch, [None, None, 7.0, 9.0, None, 8.0])
    few = ("data.reader.kwargs.num_images=24", "train.epochs=3", "schedule.kwargs.epochs=20")
    _, shown = runs.train(small_configs.training_config(*few, "eval.every_epochs=1"), tmp_path)
    assert "best mAP 9.00: ema weights of step 6" in shown


@pytest.mark.slow
def test_the_network_that_is_kept_is_the_best_of_all_evaluations(monkeypatch, tmp_path):
    _script(monkeypatch, [10.0, 20.0, 30.0, 5.0, 30.0, 25.0, 12.0, 28.0])
    few = ("data.reader.kwargs.num_images=24", "train.epochs=4", "schedule.kwargs.epochs=20")
    config = small_configs.training_config(
        *few, "train.checkpoint_every_steps=3", "eval.every_epochs=1"
    )
    last, shown = runs.train(config, tmp_path)
    assert last["mAP"] == 28.0
    assert "best mAP 30.00: plain weights of step 6" in shown
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["6"]
    params = split_model(load_model(tmp_path))[1]
    saved = runs.read_arrays(tmp_path / "checkpoints/6")
    for path, array in params.items():
        np.testing.assert_array_equal(array, saved[f"model['params']['{path}']"])


def _signal_in_evaluation(monkeypatch, number):
    """Lets a signal come while the first batch is evaluated."""
    update, calls = Multilabel.update, itertools.count()

    def update_and_signal(self, outputs, batch):
        if next(calls) == 0:
            signal.raise_signal(number)
        update(self, outputs, batch)

    monkeypatch.setattr(Multilabel, "update", update_and_signal)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_ended_during_an_evaluation_makes_up_for_it(reference, monkeypatch, tmp_path, number):
    with monkeypatch.context() as patch:
        _signal_in_evaluation(patch, number)
        with pytest.raises(SystemExit) as ended:
            _fit(tmp_path)
    assert ended.value.code == 128 + number
    assert not any("eval/mAP_ema" in row for row in runs.read_log(tmp_path))
    assert [p.name for p in sealed(tmp_path / "checkpoints")][-1] == "20"
    assert not (tmp_path / "best").exists()
    _fit(tmp_path)
    assert runs.read_log(tmp_path) == runs.read_log(reference)
    found, expected = (runs.read_arrays(w / "checkpoints/20") for w in (tmp_path, reference))
    assert found.keys() == expected.keys()
    assert all(found[path].tobytes() == expected[path].tobytes() for path in expected)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["20"]


@pytest.mark.slow
def test_a_run_whose_workers_a_signal_has_ended_too_is_saved(monkeypatch, tmp_path):
    def put(batch, mesh):
        if next(steps) == 4:
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError("Worker process was terminated")
        return put_batch(batch, mesh)

    steps = itertools.count(1)
    monkeypatch.setattr(loop, "put_batch", put)
    with pytest.raises(SystemExit) as ended:
        _fit(tmp_path)
    assert ended.value.code == 143
    # The fourth batch was sent before the second step.
    assert [p.name for p in sealed(tmp_path / "checkpoints")] == ["2"]


@pytest.mark.slow
def test_a_damaged_best_network_is_set_aside_and_replaced(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    (best,) = (workdir / "best").iterdir()
    (best / "model.json").write_text("{}")
    with pytest.warns(UserWarning, match="model.json has changed.* it is now at .*damaged-20"):
        _fit(workdir)
    assert load_model(workdir).class_names == CLASS_NAMES


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_and_left_as_it_is(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    files = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    found, shown = _fit(workdir)
    logged = [row for row in runs.read_log(workdir) if "eval/mAP_ema" in row][-1]
    assert found["mAP"] == max(logged["eval/mAP_plain"], logged["eval/mAP_ema"])
    assert "after step 20" in shown
    changed = {p for p in workdir.rglob("*") if p.is_file() and files.get(p) != p.read_bytes()}
    assert {p.parent.name for p in changed} <= {"tensorboard"}


@pytest.mark.slow
def test_a_run_that_goes_on_with_a_changed_config_says_so(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    changes = ("train.keep_checkpoints=5", "eval.threshold=0.5")
    _, shown = _fit(workdir, *changes)
    assert "changed config: eval.threshold, train.keep_checkpoints" in shown
    assert json.loads((workdir / "config.json").read_text())["eval"]["threshold"] == 0.5


@pytest.mark.slow
def test_hyperparameters_that_a_config_changes_take_effect_on_resume(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints/20")
    changes = ("optimizer.peak_lr=0.25", "optimizer.algorithm.kwargs.weight_decay=0.5")
    _fit(workdir, *changes)
    before, after = (
        {row["step"]: row for row in runs.read_log(folder) if "train/loss" in row}
        for folder in (reference, workdir)
    )
    schedule = one_cycle(0.25, 60, 10)["learning_rate"]
    for step, row in after.items():
        if step <= 15:
            assert row == before[step]
        else:
            assert row["train/learning_rate"] == schedule(step - 1)
    # The first step after the resume starts from the same weights; what follows does not.
    assert after[16]["train/loss"] == before[16]["train/loss"]
    assert after[17]["train/loss"] != before[17]["train/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_finished_run_can_be_ended_in_its_evaluation(reference, monkeypatch, tmp_path, number):
    workdir = shutil.copytree(reference, tmp_path / "run")
    _signal_in_evaluation(monkeypatch, number)
    with pytest.raises(SystemExit) as ended:
        _fit(workdir)
    assert ended.value.code == 128 + number


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_a_checkpoint(reference):
    weights = load_model(reference / "checkpoints/20")
    config = small_configs.training_config(f"model.init_from={reference / 'checkpoints/20'}")
    training = prepare(config)
    _, *expected = split_model(weights)
    assert training.description["weights"].startswith("backbone and head, from ")
    for prefix in ("", "ema_"):
        state = [getattr(training.state, prefix + name) for name in ("params", "statistics")]
        jax.tree.map(np.testing.assert_array_equal, state, expected)


# 24 photos, of 60 steps in 20 epochs.
_TWICE = (NO_BLOCKS, "train.epochs=2", "schedule.kwargs.epochs=20", "eval.every_epochs=2")


@pytest.mark.slow
def test_bad_images_are_left_out_and_counted_on_demand(tmp_path):
    change = photos.save_photos(tmp_path / "photos")
    config = small_configs.training_config(*_TWICE, change, "data.bad_images=skip")
    _, shown = runs.train(config, tmp_path / "run")
    assert "1 bad image skipped" in shown
    assert f"1 training image could not be read: {tmp_path / 'photos' / 'bad.png'}" in (
        "".join(shown.splitlines())
    )
    last = sealed(tmp_path / "run/checkpoints")[-1]
    assert json.loads((last / "progress/metadata").read_text())["bad_images"] == [
        str(tmp_path / "photos" / "bad.png")
    ]


def test_a_bad_image_stops_the_run_otherwise(tmp_path):
    change = photos.save_photos(tmp_path / "photos")
    with pytest.raises(ValueError, match="bad.png"):
        runs.train(small_configs.training_config(*_TWICE, change), tmp_path / "run")


def test_a_dry_run_prints_what_it_found_and_writes_nothing(tmp_path, monkeypatch, capsys):
    config = small_configs.write_training_config(tmp_path)
    change = photos.save_photos(tmp_path / "photos")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    changes = [NO_BLOCKS, change, "data.bad_images=skip", "data.cache=kept"]
    options = [word for change in changes for word in ("--set", change)]
    assert main(["--config", config, "--workdir", "run", "--dry-run", *options]) == 0
    shown = capsys.readouterr().out
    for text in (
        "parameters",
        "18 (6 epochs of 3)",
        "(8, 32, 32, 3) uint8",
        "(8, 10) float32",
        "first step",
        "asymmetric_loss",
        "compilation",
        "all steps",
        "nothing was written",
    ):
        assert text in shown
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir is needed to train"),
        (["--process-id", "1"], "--coordinator, --num-processes and --process-id belong together"),
        (
            ["--workdir", "w", "--set", "train.epoch=2"],
            "unknown field 'epoch'; did you mean epochs",
        ),
        (
            ["--workdir", "w", "--set", "data.batch_size=7.5"],
            "data.batch_size: .*int.*float",
        ),
        (["--workdir", "w", "--set", "data.reader.name=x"], "unknown reader 'x'"),
        (["--workdir", "w", "--set", "model.init_from=absent"], "no checkpoint at .*absent"),
    ],
)
def test_a_command_that_cannot_run_says_why_in_one_line(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["--config", small_configs.write_training_config(tmp_path), *arguments]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(shown)
    assert not (tmp_path / "w").exists()


def test_the_command_changes_the_config(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(train, "fit", lambda config, *_, **__: taken.append(config))
    changes = ["--set", "train.epochs=2", "--set", "optimizer.peak_lr=0.5", "--seed", "7"]
    assert (
        main(
            ["--config", small_configs.write_training_config(tmp_path), "--workdir", "w", *changes]
        )
        == 0
    )
    assert taken == [
        small_configs.training_config("train.epochs=2", "optimizer.peak_lr=0.5", "seed=7")
    ]
