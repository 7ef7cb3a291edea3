"""What a recipe's options do to training, and when a run refuses, stops or leaves something out."""

import dataclasses
import itertools
import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax import train
from mljax.checkpoints.checkpoint import load_model, sealed
from mljax.devices.mesh import put_batch
from mljax.models.classifier import split_model
from mljax.train import NonFiniteError, main
from mljax.training.run import make_run
from tests import miniature

# Twenty steps of the miniature recipe: a shorter cycle would be another program to compile.
SHORT = ("train.epochs=2", "schedule.epochs=6", "train.checkpoint_every_steps=5")


def _fit(workdir, *assignments):
    return miniature.train(miniature.training_recipe(*SHORT, *assignments), workdir)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Returns the workdir of twenty steps."""
    workdir = tmp_path_factory.mktemp("reference")
    _fit(workdir)
    return workdir


@pytest.fixture(scope="module")
def run():
    """Returns a run whose `state` must be copied: a step takes it away."""
    return make_run(miniature.training_recipe())


def _copy(run):
    return jax.tree.map(jnp.copy, run.state)


def _batches(run, number):
    """Returns the first inputs of a run as arrays of the host."""
    with run.train_batches(0) as batches:
        found = list(itertools.islice(batches, number))
    return [{k: v for k, v in batch.items() if k != "index"} for batch in found]


def _step(run, state, batch):
    return run.step(state, put_batch(batch, run.mesh), jax.random.key(0))


def _spoil(monkeypatch, step):
    """Makes the labels of one step infinite, and so its loss nan."""
    steps = itertools.count(1)

    def put(batch, mesh):
        if next(steps) == step:
            batch = batch | {"labels": np.full_like(batch["labels"], np.inf)}
        return put_batch(batch, mesh)

    monkeypatch.setattr(train, "put_batch", put)


def test_the_same_seed_trains_the_same_and_another_does_not(reference, tmp_path):
    expected = miniature.read_log(reference)
    _fit(tmp_path / "same", "train.epochs=1")
    assert miniature.read_log(tmp_path / "same")[:10] == expected[:10]
    _fit(tmp_path / "other", "train.epochs=0.1", "seed=1")
    assert miniature.read_log(tmp_path / "other")[0]["train/loss"] != expected[0]["train/loss"]


def test_a_step_that_is_not_finite_stops_the_run_before_it_is_saved(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        _spoil(patch, 5)
        with pytest.raises(NonFiniteError, match="step 5: asymmetric_loss is nan. The parameters"):
            _fit(tmp_path)
    assert sealed(tmp_path / "checkpoints") == []


def test_a_run_that_stopped_goes_on_as_if_nothing_had_been(reference, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        _spoil(patch, 8)
        with pytest.raises(NonFiniteError, match="step 8: "):
            _fit(tmp_path)
    assert [p.name for p in sealed(tmp_path / "checkpoints")] == ["5"]
    _fit(tmp_path)
    found, expected = (miniature.read_arrays(w / "checkpoints/20") for w in (tmp_path, reference))
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].tobytes() == array.tobytes(), path
    assert miniature.read_log(tmp_path) == miniature.read_log(reference)


def test_a_gradient_that_is_not_finite_is_named(run):
    metrics = {"finite": False, "loss/asymmetric_loss": 1.0}
    with pytest.raises(NonFiniteError, match="step 3: all losses are finite, but a gradient or"):
        train._check_finite(metrics, run, 3)


def test_a_step_that_is_not_finite_moves_the_counters_and_the_schedule_alone(run):
    (batch,) = _batches(run, 1)
    state, before = _copy(run), _copy(run)
    spoiled = batch | {
        "images": np.where(np.arange(8)[:, None, None, None] == 3, np.nan, batch["images"])
    }
    state, metrics = _step(run, state, spoiled)
    assert not metrics["finite"]
    assert (int(state.step), int(state.skipped)) == (1, 1)
    _, expected = _step(run, _copy(run), batch)
    assert metrics["learning_rate"] == expected["learning_rate"]
    assert [int(s.count) for s in state.opt_state.hyperparams_states.values()] == [1, 1]
    moved = {
        "step": before.step,
        "skipped": before.skipped,
        "opt_state": before.opt_state._replace(inner_state=state.opt_state.inner_state),
    }
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(state, **moved), before)


def test_an_update_that_is_not_finite_is_left_out_though_loss_and_gradient_are(run):
    (batch,) = _batches(run, 1)
    state = _copy(run)
    moments = jax.tree.map(lambda x: x, state.opt_state.inner_state)
    nu = {path: jnp.full_like(array, -1.0) for path, array in moments[1].nu.items()}
    spoiled = (moments[0], moments[1]._replace(nu=nu), *moments[2:])
    opt_state = state.opt_state._replace(inner_state=spoiled)
    state = dataclasses.replace(state, opt_state=opt_state)
    state, metrics = _step(run, state, batch)
    assert np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all()
    assert not metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, state.params, _copy(run).params)


def test_steps_that_are_not_finite_are_left_out_on_demand(monkeypatch, tmp_path):
    _spoil(monkeypatch, 8)
    _, shown = _fit(tmp_path, "train.non_finite=skip")
    assert "1 steps were left out: not finite" in shown
    rows = {row["step"]: row for row in miniature.read_log(tmp_path) if "train/loss" in row}
    assert [step for step, row in rows.items() if row["train/loss"] is None] == [8]
    arrays = miniature.read_arrays(tmp_path / "checkpoints/20")
    assert int(arrays["training['skipped']"]) == 1
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_figure_takes_the_place_of_an_undefined_one(monkeypatch, tmp_path):
    figures = iter([np.nan, np.nan, 7.0, 9.0, np.nan, 8.0])
    evaluate_scores = train.evaluate_scores

    def evaluate(*arguments, **options):
        found = evaluate_scores(*arguments, **options)
        return dataclasses.replace(found, mean_average_precision=next(figures))

    monkeypatch.setattr(train, "evaluate_scores", evaluate)
    few = ("data.reader.kwargs.num_images=24", "train.epochs=3", "schedule.epochs=20")
    _, shown = miniature.train(miniature.training_recipe(*few, "eval.every_epochs=1"), tmp_path)
    assert "best mAP 9.00: ema weights of step 6" in shown


def test_the_network_that_is_kept_is_the_best_of_all_evaluations(monkeypatch, tmp_path):
    figures = iter([10.0, 20.0, 30.0, 5.0, 30.0, 25.0, 12.0, 28.0])
    evaluate_scores = train.evaluate_scores

    def evaluate(*arguments, **options):
        found = evaluate_scores(*arguments, **options)
        return dataclasses.replace(found, mean_average_precision=next(figures))

    monkeypatch.setattr(train, "evaluate_scores", evaluate)
    few = ("data.reader.kwargs.num_images=24", "train.epochs=4", "schedule.epochs=20")
    config = miniature.training_recipe(
        *few, "train.checkpoint_every_steps=3", "eval.every_epochs=1"
    )
    last, shown = miniature.train(config, tmp_path)
    assert last.mean_average_precision == 28.0
    assert "best mAP 30.00: plain weights of step 6" in shown
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["6"]
    params = split_model(load_model(tmp_path))[1]
    saved = miniature.read_arrays(tmp_path / "checkpoints/6")
    for path, array in params.items():
        np.testing.assert_array_equal(array, saved[f"model['params']['{path}']"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_ended_during_an_evaluation_makes_up_for_it(reference, monkeypatch, tmp_path, number):
    collect_scores = train.collect_scores
    calls = itertools.count(1)

    def collect(apply, batches):
        def applied(images):
            if call == 1:
                signal.raise_signal(number)
            return apply(images)

        call = next(calls)
        return collect_scores(applied, batches)

    monkeypatch.setattr(train, "collect_scores", collect)
    with pytest.raises(SystemExit) as ended:
        _fit(tmp_path)
    assert ended.value.code == 128 + number
    assert next(calls) == 2, "the evaluation was not the first"
    assert [p.name for p in sealed(tmp_path / "checkpoints")][-1] == "20"
    assert not (tmp_path / "best").exists()
    _fit(tmp_path)
    assert miniature.read_log(tmp_path) == miniature.read_log(reference)
    found, expected = (miniature.read_arrays(w / "checkpoints/20") for w in (tmp_path, reference))
    assert found.keys() == expected.keys()
    assert all(found[path].tobytes() == expected[path].tobytes() for path in expected)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["20"]


def test_a_run_whose_workers_a_signal_has_ended_too_is_saved(monkeypatch, tmp_path):
    def put(batch, mesh):
        if next(steps) == 4:
            signal.raise_signal(signal.SIGTERM)
            raise RuntimeError("Worker process was terminated")
        return put_batch(batch, mesh)

    steps = itertools.count(1)
    monkeypatch.setattr(train, "put_batch", put)
    with pytest.raises(SystemExit) as ended:
        _fit(tmp_path)
    assert ended.value.code == 143
    assert [p.name for p in sealed(tmp_path / "checkpoints")] == ["3"]


def test_a_damaged_best_network_is_set_aside_and_replaced(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    (best,) = (workdir / "best").iterdir()
    (best / "model.json").write_text("{}")
    with pytest.warns(UserWarning, match="model.json has changed.* it is now at .*damaged-20"):
        _fit(workdir)
    assert load_model(workdir).class_names == miniature.CLASS_NAMES


def test_a_finished_run_is_evaluated_again_and_left_as_it_is(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    files = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    evaluation, shown = _fit(workdir)
    logged = [row for row in miniature.read_log(workdir) if "eval/mAP_ema" in row][-1]
    assert evaluation.mean_average_precision == max(
        logged["eval/mAP_plain"], logged["eval/mAP_ema"]
    )
    assert "after step 20" in shown
    changed = {p for p in workdir.rglob("*") if p.is_file() and files.get(p) != p.read_bytes()}
    assert {p.parent.name for p in changed} <= {"tensorboard"}


def test_a_run_that_goes_on_with_a_changed_recipe_says_so(reference, tmp_path):
    workdir = shutil.copytree(reference, tmp_path / "run")
    changes = ("train.keep_checkpoints=5", "eval.threshold=0.5")
    with pytest.warns(UserWarning, match="changed recipe: eval.threshold, train.keep_checkpoints"):
        _fit(workdir, *changes)
    assert json.loads((workdir / "recipe.json").read_text())["eval"]["threshold"] == 0.5


def test_a_run_starts_from_the_weights_of_a_checkpoint(reference):
    weights = load_model(reference / "checkpoints/20")
    config = miniature.training_recipe(f"model.init_from={reference / 'checkpoints/20'}")
    found = make_run(config)
    _, params, stats = split_model(weights)
    assert found.initialized.startswith("backbone and head, from ")
    for arrays in ("", "ema_"):
        state = [getattr(found.state, f"{arrays}{name}") for name in ("params", "stats")]
        jax.tree.map(np.testing.assert_array_equal, state, [params, stats])


# 24 photos, of 60 steps in 20 epochs.
_TWICE = ("train.epochs=2", "schedule.epochs=20", "eval.every_epochs=2")


def test_bad_images_are_left_out_and_counted_on_demand(tmp_path):
    photos = miniature.save_photos(tmp_path / "photos")
    config = miniature.training_recipe(*_TWICE, photos, "data.bad_images=skip")
    _, shown = miniature.train(config, tmp_path / "run")
    assert "1 bad images skipped" in shown
    assert f"1 training images could not be read: {tmp_path / 'photos' / 'bad.png'}" in (
        "".join(shown.splitlines())
    )
    last = sealed(tmp_path / "run/checkpoints")[-1]
    assert json.loads((last / "progress/metadata").read_text())["skipped"] == [24]


def test_a_bad_image_stops_the_run_otherwise(tmp_path):
    photos = miniature.save_photos(tmp_path / "photos")
    with pytest.raises(ValueError, match="bad.png"):
        miniature.train(miniature.training_recipe(*_TWICE, photos), tmp_path / "run")


_ONE_BLOCK = "model.backbone.kwargs.layers=(1, 0, 0, 0)"


def test_two_micro_batches_equal_a_batch_of_two_normalized_halves():
    # The number of micro-batches must not change a mean over the batch either.
    recipe = (_ONE_BLOCK, "losses.0.reduction=mean")
    accumulated = make_run(miniature.training_recipe(*recipe, "train.accumulation=2"))
    grouped = make_run(miniature.training_recipe(*recipe, "train.batch_norm_groups=2"))
    (batch,) = _batches(accumulated, 1)
    # A micro-batch has every other example.
    first, second = ({k: v[i::2] for k, v in batch.items()} for i in (0, 1))

    def halves(a, b):
        joined = {k: np.concatenate([a[k], b[k]]) for k in batch}
        return _step(grouped, _copy(grouped), joined)

    start = _copy(accumulated).stats
    state, metrics = _step(accumulated, _copy(accumulated), batch)
    expected, expected_metrics = halves(first, second)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-5)
    for path, array in expected.params.items():
        np.testing.assert_allclose(state.params[path], array, rtol=1e-4, atol=1e-6, err_msg=path)
    # Running statistics move once a micro-batch, by a tenth each time.
    one, two = halves(first, first)[0].stats, halves(second, second)[0].stats
    for path, array in state.stats.items():
        by_hand = 0.9 * one[path] + (two[path] - 0.9 * start[path])
        np.testing.assert_allclose(array, by_hand, rtol=1e-5, atol=1e-6, err_msg=path)


def test_bfloat16_trains_float32_parameters():
    run = make_run(miniature.training_recipe(_ONE_BLOCK, "model.dtype=bfloat16"))
    (batch,) = _batches(run, 1)
    state, losses = run.state, []
    program = run.step.lower(state, put_batch(batch, run.mesh), jax.random.key(0)).as_text()
    assert "bf16" in program
    for _ in range(40):
        state, metrics = _step(run, state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert {str(a.dtype) for a in jax.tree.leaves((state.params, state.ema_params))} == {"float32"}
    assert run.forward(state.params, state.stats, batch["images"]).dtype == np.float32


def _recipe_file(folder):
    path = folder / "recipe.py"
    path.write_text("from tests import miniature\nget_config = miniature.training_recipe\n")
    return str(path)


def test_a_dry_run_prints_what_it_found_and_writes_nothing(tmp_path, monkeypatch, capsys):
    recipe = _recipe_file(tmp_path)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["--config", recipe, "--workdir", "run", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "parameters",
        "60 (6 epochs of 10)",
        "(8, 32, 32, 3) float32",
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
        (["--workdir", "w", "--set", "data.batch_size=7.5"], "data.batch_size: expected int"),
        (["--workdir", "w", "--set", "data.reader.name=x"], "unknown reader 'x'"),
        (["--workdir", "w", "--set", "model.init_from=absent"], "no checkpoint at .*absent"),
    ],
)
def test_a_command_that_cannot_run_says_why_in_one_line(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["--config", _recipe_file(tmp_path), *arguments]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(shown)
    assert not (tmp_path / "w").exists()


def test_the_command_changes_the_recipe(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(train, "fit", lambda config, *_, **__: taken.append(config))
    changes = ["--set", "train.epochs=2", "--set", "optimizer.peak_lr=0.5", "--seed", "7"]
    assert main(["--config", _recipe_file(tmp_path), "--workdir", "w", *changes]) == 0
    assert taken == [miniature.training_recipe("train.epochs=2", "optimizer.peak_lr=0.5", "seed=7")]
