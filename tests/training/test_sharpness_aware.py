"""Sharpness-aware gradients: the published steps on quadratics, and what the second pass sees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mljax.config import loss, part
from mljax.models.arrays import split_model
from mljax.trackers.class_prior import ClassPrior
from mljax.training.gradients import make_gradients, micro_batches, sharpness_aware
from mljax.training.objective import make_terms
from mljax.training.optimizer import make_optimizer
from mljax.training.state import make_state
from mljax.training.step import make_train_step
from tests import golden, networks

BATCH = {
    "images": np.random.default_rng(0).normal(size=(12, 2, 2, 3)).astype(np.float32),
    "labels": np.random.default_rng(1).integers(-1, 2, (12, 3)).astype(np.float32),
    "valid": np.ones(12, bool),
}


def _quadratic(curvature, slope):
    """Returns gradients of w A w / 2 + b w; the statistics are where they were taken last."""

    def value(params, variables, batch, key):
        w = params["w"]
        return w @ curvature @ w / 2 + slope @ w, ({**variables, "statistics": params}, {})

    return jax.value_and_grad(value, has_aux=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", golden.names("aam_opt", "sam_quad"))
def test_steps_on_a_quadratic_are_the_originals(case, dtype):
    arrays, hyper = golden.arrays("aam_opt", case), golden.cases("aam_opt")[case]["hyper"]
    suffix, tolerance = ("_f64", 1e-13) if dtype == "float64" else ("", 1e-6)
    with jax.enable_x64(dtype == "float64"):
        curvature, slope, w = (jnp.asarray(arrays[name], dtype) for name in ("A", "b", "w0"))
        gradients = sharpness_aware(
            _quadratic(curvature, slope), rho=float(hyper["rho"]), adaptive=hyper["adaptive"]
        )
        transform = make_optimizer(
            part("torch_sgd", momentum=hyper["momentum"], weight_decay=hyper["weight_decay"])
        )({"learning_rate": hyper["lr"]})
        params = {"w": w}
        state = transform.init(params)
        for step in range(hyper["steps"]):
            (_, (after, _)), grads = gradients(
                params, {"statistics": params, "trackers": {}}, {}, jax.random.key(0)
            )
            updates, state = transform.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            for found, name in ((after["statistics"], "w_perturbed"), (params, "w_after")):
                expected = arrays[name + suffix][step]
                np.testing.assert_allclose(found["w"], expected, rtol=tolerance, atol=tolerance)


def _network(*wrappers):
    """Returns loss, variables, terms and gradients of a small network with a tracker."""
    model, trackers = networks.pixel_model(), {"class_prior": ClassPrior()}
    gradients = make_gradients(model, make_terms((loss("asymmetric_loss"),), ()), trackers=trackers)
    for wrap in wrappers:
        gradients = wrap(gradients)
    _, params, statistics = split_model(model)
    tracked = {name: tracker.init(model) for name, tracker in trackers.items()}
    variables = {"statistics": statistics, "trackers": tracked}
    return jax.jit(gradients)(params, variables, BATCH, jax.random.key(0))


@pytest.fixture(scope="module")
def plain():
    return _network()


@pytest.fixture(scope="module")
def climbed():
    return _network(sharpness_aware)


def test_without_a_climb_they_are_the_plain_gradients(plain):
    _, grads = _network(lambda gradients: sharpness_aware(gradients, rho=0.0))
    for name, array in plain[1].items():
        np.testing.assert_allclose(grads[name], array, rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_climb_raises_the_loss(plain, climbed):
    (lower, _), (higher, _) = plain[0], climbed[0]
    norm = optax.tree.norm(plain[1])
    # To first order by rho times the norm of the gradients; the loss is convex around there.
    assert 0.5 * 0.05 * norm < higher - lower < 2 * 0.05 * norm


def test_statistics_move_twice_and_trackers_once(plain, climbed):
    before, after = plain[0][1][0], climbed[0][1][0]
    assert before["statistics"]["backbone.batches"] == 1
    assert after["statistics"]["backbone.batches"] == 2
    for name, array in before["trackers"]["class_prior"].items():
        np.testing.assert_allclose(
            after["trackers"]["class_prior"][name], array, rtol=1e-6, err_msg=name
        )


def test_both_passes_can_be_in_micro_batches(climbed):
    _, grads = _network(lambda gradients: micro_batches(gradients, count=3), sharpness_aware)
    for name, array in climbed[1].items():
        np.testing.assert_allclose(grads[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("fails", ["none", "first", "first_overflows", "second"])
def test_a_pass_that_is_not_finite_leaves_everything_as_it_was(fails):
    # As the original's cases of overflow, whose weights stay at the end of the climb in the second.
    model = networks.pixel_model()
    start = split_model(model)[1]["head.linear.bias"]
    huge = {"first": jnp.inf, "first_overflows": 1e30}

    def gradients(params, variables, batch, key):
        in_first = (params["head.linear.bias"] == start).all()
        value = jnp.where(in_first, huge.get(fails, 1.0), jnp.nan if fails == "second" else 1.0)
        return (jnp.float32(1), (variables, {})), jax.tree.map(lambda w: w * 0 + value, params)

    optimizer, rates = make_optimizer(part("torch_sgd", momentum=0.9)), {"learning_rate": 0.1}
    state = make_state(model, optimizer, rates, ema_decay=0.9)
    step = jax.jit(make_train_step(sharpness_aware(gradients), optimizer, ema_decay=0.9))
    after, metrics = step(state, {}, jax.random.key(0), rates)
    assert metrics["finite"] == (fails == "none")
    assert after.skipped == (fails != "none")
    for name, array in state.params.items():
        expected = array - 0.1 if fails == "none" else array
        np.testing.assert_allclose(after.params[name], expected, rtol=1e-6)


def test_gradients_of_zero_do_not_climb():
    gradients = sharpness_aware(_quadratic(jnp.eye(3), jnp.zeros(3)))
    params = {"w": jnp.zeros(3)}
    (_, (after, _)), grads = gradients(
        params, {"statistics": params, "trackers": {}}, {}, jax.random.key(0)
    )
    np.testing.assert_array_equal(after["statistics"]["w"], 0)
    np.testing.assert_array_equal(grads["w"], 0)


def test_a_negative_rho_is_refused():
    with pytest.raises(ValueError, match="sharpness_aware: rho must be at least 0, got -1"):
        sharpness_aware(_quadratic(1, 1), rho=-1.0)
