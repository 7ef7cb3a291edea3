"""The selective loss against the published code, its limits, and the whole-batch budget."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.losses.asymmetric import asymmetric_loss
from mljax.losses.selective import partial_label_weights, selective_loss
from tests import golden

CASES = golden.names("csl_loss")
MODES = ["negative", "ignore", "ignore_normalize_classes", "selective"]
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 3, (5, 8)), jnp.float32)
LABELS = jnp.asarray(RNG.choice([-1.0, -1.0, 0.0, 1.0], (5, 8)), jnp.float32)
UNANNOTATED = np.asarray(LABELS) == -1


def selective_weights(*arrays, **arguments):
    arguments = {"mode": "selective"} | arguments
    # Compiled whole, since compiling op by op takes ten times as long.
    return jax.jit(functools.partial(partial_label_weights, **arguments))(*arrays)


def _value_and_gradient(loss, logits, labels):
    return jax.jit(jax.value_and_grad(lambda x: loss(x, labels).sum()))(logits)


def _arguments(case, arrays):
    """Returns the keyword arguments of a case: (of the weights, of the terms)."""
    hyper = golden.cases("csl_loss")[case]["hyper"]
    selection = {
        "mode": hyper["partial_loss_mode"] or "negative",
        "prior": arrays.get("prior"),
        "prior_threshold": hyper["prior_threshold"],
        "likelihood_topk": hyper["likelihood_topk"],
    }
    names = ("clip", "gamma_pos", "gamma_neg", "alpha_pos", "alpha_neg")
    terms = {name: float(hyper[name]) for name in names}
    for name in ("gamma", "alpha"):
        terms[f"{name}_unannotated"] = float(hyper[f"{name}_unann"])
    # The reference rounds the factors to float32 in float64 runs too.
    rounded = {n: float(np.float32(v)) for n, v in terms.items() if n.startswith("alpha")}
    return selection, terms | rounded


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_selective_loss_equals_reference(case, dtype):
    arrays = golden.arrays("csl_loss", case)
    selection, terms = _arguments(case, arrays)
    suffix = "_f64" if dtype == "float64" else ""
    with jax.enable_x64(dtype == "float64"):
        labels = jnp.asarray(arrays["t"], dtype)
        loss = functools.partial(selective_loss, **selection, **terms)
        logits = jnp.asarray(arrays["x"], dtype)
        value, gradient = _value_and_gradient(loss, logits, labels)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    if selection["mode"] == "ignore_normalize_classes":
        # The reference computes these weights in float32 in float64 runs too.
        tolerance = max(tolerance, 1e-7)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(value, arrays["loss" + suffix], rtol=tolerance)
    np.testing.assert_allclose(gradient, arrays["grad" + suffix], atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_weights_equal_reference(case):
    arrays = golden.arrays("csl_loss", case)
    selection, _ = _arguments(case, arrays)
    logits, labels = jnp.asarray(arrays["x"]), jnp.asarray(arrays["t"], jnp.float32)
    weights = selective_weights(logits, labels, **selection)
    expected = np.broadcast_to(arrays["weights"], weights.shape)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_unannotated_labels_are_absent_ones_in_negative_mode():
    loss = selective_loss(LOGITS, LABELS, gamma_pos=1.0, gamma_neg=3.0, gamma_unannotated=3.0)
    as_absent = jnp.where(LABELS == -1, 0.0, LABELS)
    expected = asymmetric_loss(LOGITS, as_absent, gamma_neg=3.0, gamma_pos=1.0, clip=0.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_ignore_mode_is_the_asymmetric_loss_that_leaves_unannotated_labels_out():
    loss = selective_loss(LOGITS, LABELS, gamma_neg=3.0, mode="ignore")
    expected = asymmetric_loss(LOGITS, LABELS, gamma_neg=3.0, gamma_pos=0.0, clip=0.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_fully_annotated_labels_give_the_asymmetric_loss(mode):
    labels = jnp.abs(LABELS)
    loss = selective_loss(LOGITS, labels, gamma_neg=4.0, clip=0.05, mode=mode)
    expected = asymmetric_loss(LOGITS, labels, gamma_neg=4.0, gamma_pos=0.0, clip=0.05)
    factor = 1 + 1 / 9 if mode == "ignore_normalize_classes" else 1
    np.testing.assert_allclose(loss, factor * expected, rtol=1e-6)


@pytest.mark.parametrize("per_sample", [False, True])
def test_no_budget_leaves_nothing_out(per_sample):
    weights = selective_weights(LOGITS, LABELS, likelihood_topk=0, per_sample=per_sample)
    np.testing.assert_array_equal(weights, 1)


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_huge_budget_is_ignore_mode(per_sample):
    weights = selective_weights(LOGITS, LABELS, likelihood_topk=1000, per_sample=per_sample)
    np.testing.assert_array_equal(weights == 0, UNANNOTATED)


def test_the_budget_is_shared_by_the_whole_batch():
    logits = LOGITS.at[0].add(100.0)
    weights = selective_weights(logits, LABELS, likelihood_topk=1)
    dropped = np.asarray(weights) == 0
    assert dropped.sum() == 5
    assert dropped[0].sum() == min(5, UNANNOTATED[0].sum())


def test_the_per_sample_budget_leaves_out_the_likeliest_of_each_image():
    weights = selective_weights(LOGITS, LABELS, likelihood_topk=2, per_sample=True)
    for row, scores, unannotated in zip(weights, LOGITS, UNANNOTATED, strict=True):
        likeliest = sorted(np.flatnonzero(unannotated), key=lambda k: -scores[k])[:2]
        np.testing.assert_array_equal(np.flatnonzero(row == 0), sorted(likeliest))


def test_classes_that_the_prior_leaves_out_use_up_the_budget():
    labels = -jnp.ones((1, 4))
    logits = jnp.array([[4.0, 3.0, 2.0, 1.0]])
    prior = jnp.array([0.9, 0.9, 0.0, 0.0])
    weights = selective_weights(logits, labels, prior=prior, likelihood_topk=2)
    np.testing.assert_array_equal(weights, [[0, 0, 1, 1]])


def test_rows_of_padding_spend_no_budget():
    padded_logits = jnp.concatenate([LOGITS, 50 + LOGITS[:3]])
    padded_labels = jnp.concatenate([LABELS, -jnp.ones((3, 8))])
    valid = jnp.arange(8) < 5
    padded = selective_weights(padded_logits, padded_labels, valid, likelihood_topk=2)
    alone = selective_weights(LOGITS, LABELS, likelihood_topk=2)
    np.testing.assert_array_equal(padded[:5], alone)


def test_the_first_of_equal_logits_is_left_out():
    weights = selective_weights(jnp.zeros((2, 3)), -jnp.ones((2, 3)), likelihood_topk=2)
    np.testing.assert_array_equal(weights, [[0, 0, 0], [0, 1, 1]])


def test_saturated_probabilities_keep_the_order_of_their_logits():
    logits = jnp.array([[50.0, 60.0, 40.0]])
    weights = selective_weights(logits, -jnp.ones((1, 3)), likelihood_topk=1)
    np.testing.assert_array_equal(weights, [[1, 0, 1]])


@pytest.mark.parametrize("mode", MODES[:3])
def test_a_prior_has_no_effect_without_selective_mode(mode):
    with_prior = selective_loss(LOGITS, LABELS, mode=mode, prior=jnp.ones(8))
    np.testing.assert_array_equal(with_prior, selective_loss(LOGITS, LABELS, mode=mode))


def test_a_prior_of_other_classes_raises():
    with pytest.raises(ValueError, match="8 classes"):
        selective_loss(LOGITS, LABELS, mode="selective", prior=jnp.ones(7))


def test_an_unknown_mode_raises():
    with pytest.raises(ValueError, match="mode must be one of negative, .* got 'positive'"):
        selective_loss(LOGITS, LABELS, mode="positive")


def test_a_negative_budget_raises():
    with pytest.raises(ValueError, match="likelihood_topk"):
        selective_loss(LOGITS, LABELS, mode="selective", likelihood_topk=-1)


@pytest.mark.parametrize("mode", MODES)
def test_extreme_logits_give_finite_values_and_gradients(mode):
    logits = jnp.array([[-1e4, -100.0, -17.0, 0.0, 17.0, 100.0, 1e4, 1e30]] * 3)
    labels = jnp.array([[1.0], [0.0], [-1.0]]) * jnp.ones((1, 8))
    for gamma in (0.0, 0.5, 2.0):
        loss = functools.partial(
            selective_loss, gamma_pos=gamma, gamma_neg=gamma, gamma_unannotated=gamma, mode=mode
        )
        value, gradient = _value_and_gradient(loss, logits, labels)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mode", MODES)
def test_jit_equals_eager(mode):
    loss = functools.partial(selective_loss, mode=mode, prior=jnp.linspace(0, 0.1, 8), clip=0.05)
    np.testing.assert_allclose(jax.jit(loss)(LOGITS, LABELS), loss(LOGITS, LABELS), atol=1e-6)


def test_bfloat16_logits_give_a_float32_loss():
    loss = selective_loss(LOGITS.astype(jnp.bfloat16), LABELS, mode="selective")
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(
        loss, selective_loss(LOGITS, LABELS, mode="selective"), rtol=0.1, atol=0.05
    )


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from mljax.losses.selective import partial_label_weights
from mljax.devices.mesh import batch_sharding, make_mesh

rng = np.random.default_rng(0)
logits = rng.normal(size=(16, 5)).astype(np.float32)
logits[:2] += 9  # One device's images would use the whole budget.
labels = rng.choice([-1.0, -1.0, 0.0, 1.0], (16, 5)).astype(np.float32)
weights = jax.jit(lambda x, y: partial_label_weights(x, y, mode="selective", likelihood_topk=1))
alone = weights(logits, labels)
spread = weights(*jax.device_put((logits, labels), batch_sharding(make_mesh())))
assert len(spread.sharding.device_set) == 8
np.testing.assert_array_equal(spread, alone)
assert (np.asarray(alone) == 0).sum() == 16
"""


def test_the_budget_is_over_the_global_batch_of_eight_devices():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", SHARDED], env=environment, check=True)
