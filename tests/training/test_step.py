"""The train step: the original's trajectory, and what one step changes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import from_torch, to_numpy
from mljax import create_model
from mljax.config import loss, part
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import ModelSpec, abstract_model
from mljax.trackers.class_prior import ClassPrior
from mljax.training.gradients import make_gradients, micro_batches
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.schedules import hyperparameters, one_cycle
from mljax.training.state import make_state
from mljax.training.step import NonFiniteError, check_finite, make_train_step
from tests import golden, networks

FOCUS = {"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05}


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "tolerance"), [("", 1e-4), ("_f64", 1e-11)])
def test_six_steps_follow_the_originals_trajectory(suffix, tolerance):
    row, expected = golden.cases("asl_train")["e2e_mini"], golden.arrays("asl_train", "e2e_mini")
    hyper, decay = row["hyper"], row["hyper"]["ema_decay"]
    schedule = one_cycle(
        hyper["lr"],
        hyper["steps_per_epoch"] * hyper["epochs"],
        hyper["steps_per_epoch"],
        warmup_fraction=hyper["pct_start"],
    )
    rates = [hyperparameters(schedule, step) for step in range(hyper["steps"])]
    with jax.enable_x64(bool(suffix)):
        model = from_torch(golden.state_dict("asl_train", "e2e_mini"))
        optimizer = make_optimizer(part("torch_adam", weight_decay=hyper["weight_decay"]))
        state = make_state(model, optimizer, rates[0], ema_decay=decay)
        if suffix:
            state = networks.in_float64(state, optimizer(rates[0]))
        gradients = make_gradients(model, make_terms((loss("asymmetric_loss", **FOCUS),), ()))
        step = jax.jit(make_train_step(gradients, optimizer, ema_decay=decay))
        losses = []
        for i in range(hyper["steps"]):
            x = np.moveaxis(golden.fill_input(f"e2e.x{i}", (4, 3, 64, 64)), 1, -1)
            y = golden.fill_input(f"e2e.y{i}", (4, 5)) < 0.3
            dtype = float if suffix else np.float32
            batch = {
                "images": jnp.asarray(x, dtype),
                "labels": jnp.asarray(y, dtype),
                "valid": np.ones(4, bool),
            }
            state, metrics = step(state, batch, jax.random.key(0), rates[i])
            losses.append(metrics["loss"])
        np.testing.assert_allclose(losses, expected["losses" + suffix], rtol=tolerance)
        graph = nnx.graphdef(model)
        predict = jax.jit(lambda p, s, x: merge_model(graph, p, s)(x)["logits"])
        x0 = jnp.asarray(np.moveaxis(golden.fill_input("e2e.x0", (4, 3, 64, 64)), 1, -1), dtype)
        for prefix, params, statistics in (
            ("", state.params, state.statistics),
            ("ema_", state.ema_params, state.ema_statistics),
        ):
            trained = merge_model(graph, params, statistics)
            found = to_numpy(trained)
            for kind in ("param", "stat"):
                names = row["extra"][f"{kind}_names"]
                norms = [np.linalg.norm(found[name].ravel()) for name in names]
                np.testing.assert_allclose(
                    norms, expected[f"{prefix}{kind}_norms{suffix}"], rtol=tolerance, atol=tolerance
                )
            logits = predict(params, statistics, x0)
            np.testing.assert_allclose(
                logits, expected[f"{prefix}eval_logits{suffix}"], rtol=tolerance, atol=tolerance
            )
        np.testing.assert_allclose(
            to_numpy(merge_model(graph, state.params, state.statistics))["head.fc.weight"][:, :16],
            expected["fc_weight" + suffix],
            rtol=tolerance,
            atol=tolerance,
        )


@pytest.mark.parametrize("backbone", ["tresnet_m", "resnet18", "efficientnet_v2_b0"])
@pytest.mark.parametrize("head", ["linear", "ml_decoder", "query2label"])
def test_no_array_of_a_fresh_network_has_a_weak_type(backbone, head):
    # A step returns strong ones, for which the next step would be compiled again.
    spec = ModelSpec(backbone=part(backbone), head=part(head), num_classes=3)
    for arrays in split_model(abstract_model(spec))[1:]:
        assert [path for path, array in arrays.items() if array.weak_type] == []


def _batch(rows=8, size=32):
    rng = np.random.default_rng(0)
    return {
        "images": rng.uniform(size=(rows, size, size, 3)).astype(np.float32),
        "labels": rng.integers(-1, 2, (rows, 10)).astype(np.float32),
        "valid": np.ones(rows, bool),
    }


ADAM, RATES = make_optimizer(part("torch_adam", weight_decay=0.1)), {"learning_rate": 0.01}
TRACKERS = {"class_prior": ClassPrior()}


def _make(model, *, reduction="sum", wrap=lambda gradients: gradients, batch_norm_groups=1):
    """Returns a state and a jitted step of the asymmetric loss, with average and tracker."""
    terms = make_terms((loss("asymmetric_loss", reduction=reduction),), ())
    gradients = make_gradients(model, terms, trackers=TRACKERS, batch_norm_groups=batch_norm_groups)
    step = jax.jit(make_train_step(wrap(gradients), ADAM, ema_decay=0.9))
    state = make_state(model, ADAM, RATES, ema_decay=0.9, trackers=TRACKERS)
    return state, lambda state, batch: step(state, batch, jax.random.key(0), RATES)


@pytest.fixture(scope="module")
def small():
    """Returns the first state and the step of a network of two layers."""
    return _make(networks.pixel_model(10))


def test_a_step_changes_all_that_a_state_has(small):
    before, step = small
    after, metrics = step(before, _batch())
    assert set(metrics) == {"loss", "loss/asymmetric_loss", "gradient_norm", "finite"}
    assert (int(after.step), int(after.skipped)) == (1, 0)
    for name in ("params", "statistics", "ema_params", "ema_statistics", "trackers"):
        found, old = (jax.tree.leaves(getattr(state, name)) for state in (after, before))
        assert all((a != b).any() for a, b in zip(found, old, strict=True)), name
    for path, array in after.ema_params.items():
        expected = 0.9 * before.params[path] + 0.1 * after.params[path]
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-7)


def test_a_step_that_is_not_finite_moves_the_counters_alone(small):
    first, step = small
    before, _ = step(first, _batch())
    bad = np.arange(8)[:, None, None, None] == 3
    batch = _batch()
    after, metrics = step(before, batch | {"images": np.where(bad, np.nan, batch["images"])})
    assert not metrics["finite"]
    assert (int(after.step), int(after.skipped)) == (2, 1)
    moved = {"step": before.step, "skipped": before.skipped}
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(after, **moved), before)


def test_an_update_that_is_not_finite_is_left_out_though_loss_and_gradient_are(small):
    before, step = small
    adam = before.opt_state[1]
    nu = {path: jnp.full_like(array, -1.0) for path, array in adam.nu.items()}
    spoiled = (before.opt_state[0], adam._replace(nu=nu), *before.opt_state[2:])
    after, metrics = step(dataclasses.replace(before, opt_state=spoiled), _batch())
    assert np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all()
    assert not metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_gpu_selects_what_a_cpu_branches_to(small, monkeypatch, value):
    before, step = small
    batch = _batch() | {"images": np.full((8, 32, 32, 3), value, np.float32)}
    expected, metrics = step(before, batch)
    assert metrics["finite"] == np.isfinite(value)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    _, selecting = _make(networks.pixel_model(10))
    jax.tree.map(np.testing.assert_array_equal, selecting(before, batch)[0], expected)


def test_a_gpu_does_not_ask_its_host_for_a_branch():
    state = make_state(networks.pixel_model(10), ADAM, RATES)
    gradients = make_gradients(
        networks.pixel_model(10), make_terms((loss("asymmetric_loss"),), ()), trackers={}
    )
    traced = jax.jit(make_train_step(gradients, ADAM)).trace(
        state, _batch(), jax.random.key(0), RATES
    )
    # The choice of the platform is one of constants, which XLA takes out.
    programs = [traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda")]
    on_cpu, on_gpu = (program.count("stablehlo.case") for program in programs)
    assert on_cpu == on_gpu + 1


def test_a_gradient_that_is_not_finite_is_named():
    metrics = {"finite": jnp.array(False), "loss/asymmetric_loss": jnp.array(1.0)}
    with pytest.raises(NonFiniteError, match="step 3: all losses are finite, but a gradient or"):
        check_finite(metrics, 3)
    check_finite(metrics, 3, "skip")


_ONE_BLOCK = {"layers": (1, 0, 0, 0), "width": 8}


@pytest.mark.slow
def test_two_micro_batches_equal_a_batch_of_two_normalized_halves():
    # The number of micro-batches must not change a mean over the batch either.
    model = networks.model(backbone=part("tresnet_m", **_ONE_BLOCK))
    wrap = functools.partial(micro_batches, count=2)
    start, step_in_two = _make(model, reduction="mean", wrap=wrap)
    _, step_of_halves = _make(model, reduction="mean", batch_norm_groups=2)
    batch = _batch()
    # A micro-batch has every other example.
    first, second = ({k: v[i::2] for k, v in batch.items()} for i in (0, 1))

    def halves(a, b):
        return step_of_halves(start, {k: np.concatenate([a[k], b[k]]) for k in batch})

    state, metrics = step_in_two(start, batch)
    expected, expected_metrics = halves(first, second)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-5)
    for path, array in expected.params.items():
        np.testing.assert_allclose(state.params[path], array, rtol=1e-4, atol=1e-6, err_msg=path)
    # Running statistics move once a micro-batch, by a tenth each time.
    one, two = halves(first, first)[0].statistics, halves(second, second)[0].statistics
    for path, array in state.statistics.items():
        by_hand = 0.9 * one[path] + (two[path] - 0.9 * start.statistics[path])
        np.testing.assert_allclose(array, by_hand, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.slow
def test_bfloat16_trains_float32_parameters():
    model = create_model(
        "tresnet_m",
        num_classes=10,
        backbone_kwargs=_ONE_BLOCK,
        dtype="bfloat16",
        rngs=nnx.Rngs(0),
    )
    state, step = _make(model)
    batch, losses = _batch(), []
    for _ in range(40):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.7 * losses[0]
    assert {str(a.dtype) for a in jax.tree.leaves((state.params, state.ema_params))} == {"float32"}
    graph = nnx.graphdef(model)
    predict = jax.jit(lambda p, s, x: merge_model(graph, p, s)(x)["logits"])
    arguments = state.params, state.statistics, batch["images"]
    assert "bf16" in predict.lower(*arguments).as_text()
    assert predict(*arguments).dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_the_prior_is_the_mean_prediction_in_training_mode_over_valid_images(count):
    model = networks.model(backbone=part("tresnet_m", **_ONE_BLOCK))
    state, step = _make(model, wrap=functools.partial(micro_batches, count=count))
    training = nnx.view(model, use_running_average=False, raise_if_not_found=False)
    graph = nnx.graphdef(training)
    predict = jax.jit(lambda p, s, x: jax.nn.sigmoid(merge_model(graph, p, s)(x)["logits"]))
    scores = []
    for number in range(3):
        rng = np.random.default_rng(number)
        batch = _batch() | {
            "images": rng.uniform(size=(8, 32, 32, 3)).astype(np.float32),
            "valid": np.arange(8) != number,
        }
        for i in range(count):
            rows = {name: array[i::count] for name, array in batch.items()}
            found = predict(state.params, state.statistics, rows["images"])
            scores.append(found[rows["valid"]])
        state, _ = step(state, batch)
    prior, scores = state.trackers["class_prior"], np.concatenate(scores)
    assert prior["count"] == len(scores) == 21
    np.testing.assert_allclose(prior["mean"], scores.mean(0), atol=1e-5)


class _OverflowingBackbone(networks.PixelBackbone):
    """Counts to infinity, while outputs, gradients and updates stay finite."""

    def __call__(self, images):
        found = super().__call__(images)
        self.batches[...] = jnp.where(images.max() > 2, jnp.inf, self.batches[...])
        return found


def test_a_running_statistic_that_is_not_finite_leaves_the_step_out():
    first, step = _make(networks.pixel_model(10, _OverflowingBackbone()))
    before, metrics = step(first, _batch())
    assert metrics["finite"]
    batch = _batch()
    after, metrics = step(before, batch | {"images": batch["images"] * 3})
    assert np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all()
    assert not metrics["finite"]
    moved = {"step": before.step, "skipped": before.skipped}
    jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(after, **moved), before)
    with pytest.raises(NonFiniteError, match="step 2: .*a running variance"):
        check_finite(metrics, 2)


def test_an_array_that_begins_infinite_is_no_fault_of_a_step():
    # As the best value of an optimizer that looks for a plateau.
    first, step = _make(networks.pixel_model(10))
    statistics = {path: jnp.full_like(array, jnp.inf) for path, array in first.statistics.items()}
    infinite = {"statistics": statistics, "ema_statistics": statistics}
    after, metrics = step(dataclasses.replace(first, **infinite), _batch())
    assert metrics["finite"]
    assert int(after.skipped) == 0
