"""The asymmetric losses against the published code's values and gradients, and their limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mljax.losses.asymmetric import asymmetric_loss, single_label_asymmetric_loss
from tests import golden

MULTI = [name for name in golden.names("asl_loss") if not name.startswith("single")]
SINGLE = golden.names("asl_loss", "single")
PRECISIONS = pytest.mark.parametrize("dtype", ["float32", "float64"])
LOGITS = jnp.linspace(-6, 6, 24, dtype=jnp.float32).reshape(4, 6)
LABELS = (jnp.arange(24).reshape(4, 6) % 3 == 0).astype(jnp.float32)
ONE_HOT = jnp.eye(6)[jnp.array([0, 3, 5, 1])]


def _arguments(hyper):
    kept = {key: hyper[key] for key in ("gamma_neg", "gamma_pos", "clip", "eps")}
    kept = {key: value if value is None else float(value) for key, value in kept.items()}
    return kept | {"differentiable_focus": not hyper["disable_torch_grad_focal_loss"]}


def _reference(case, dtype):
    arrays = golden.arrays("asl_loss", case)
    suffix = "_f64" if dtype == "float64" else ""
    return arrays, arrays["loss" + suffix], arrays["grad" + suffix]


@functools.partial(
    jax.jit, static_argnames=("gamma_neg", "gamma_pos", "clip", "eps", "differentiable_focus")
)
def _value_and_gradient(logits, labels, **arguments):
    """Returns the sum of the asymmetric loss and its gradient, by one program."""
    return jax.value_and_grad(lambda x: asymmetric_loss(x, labels, **arguments).sum())(logits)


@PRECISIONS
@pytest.mark.parametrize("case", MULTI)
def test_asymmetric_loss_equals_reference(case, dtype):
    arrays, expected, expected_gradient = _reference(case, dtype)
    arguments = _arguments(golden.cases("asl_loss")[case]["hyper"])
    with jax.enable_x64(dtype == "float64"):
        logits, labels = (jnp.asarray(arrays[name], dtype) for name in ("x", "y"))
        # Op by op in this case: where its two terms nearly cancel, a program that is compiled whole
        # rounds them otherwise, by 1.5e-6.
        with jax.disable_jit(case == "extreme_fracgamma_gradon"):
            value, gradient = _value_and_gradient(logits, labels, **arguments)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    assert gradient.dtype == dtype
    # The reference's nan, 0 times an infinite slope, is 0 here.
    np.testing.assert_allclose(
        gradient, np.where(np.isnan(expected_gradient), 0.0, expected_gradient), atol=tolerance
    )


@PRECISIONS
@pytest.mark.parametrize("case", golden.names("q2l_loss"))
def test_asymmetric_loss_is_also_that_of_query2label(case, dtype):
    """Its code divides by images and classes and multiplies by 1000; its plain class sums."""
    arrays, hyper = golden.arrays("q2l_loss", case), golden.cases("q2l_loss")[case]["hyper"]
    suffix, tolerance = ("_f64", 1e-13) if dtype == "float64" else ("", 1e-6)
    factor = 1000 / arrays["logits"].size if hyper["optimized"] else 1.0
    with jax.enable_x64(dtype == "float64"):
        logits, labels = (jnp.asarray(arrays[name], dtype) for name in ("logits", "targets"))
        value, gradient = _value_and_gradient(logits, labels, **_arguments(hyper))
    np.testing.assert_allclose(factor * np.asarray(value), arrays["loss" + suffix], rtol=tolerance)
    expected = arrays["grad_logits" + suffix]
    np.testing.assert_allclose(
        factor * np.asarray(gradient), expected, rtol=tolerance, atol=tolerance
    )


@PRECISIONS
@pytest.mark.parametrize("case", SINGLE)
def test_single_label_loss_equals_reference(case, dtype):
    arrays, expected, expected_gradient = _reference(case, dtype)
    hyper = golden.cases("asl_loss")[case]["hyper"]
    reduce = jnp.mean if hyper["reduction"] == "mean" else lambda values: values
    with jax.enable_x64(dtype == "float64"):
        labels = jax.nn.one_hot(arrays["t"], arrays["x"].shape[1], dtype=dtype)

        @jax.jit
        def loss(logits):
            losses = single_label_asymmetric_loss(
                logits,
                labels,
                gamma_pos=float(hyper["gamma_pos"]),
                gamma_neg=float(hyper["gamma_neg"]),
                smoothing=hyper["eps"],
            )
            return reduce(losses)

        logits = jnp.asarray(arrays["x"], dtype)
        value, gradient = loss(logits), jax.grad(lambda x: loss(x).sum())(logits)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    np.testing.assert_allclose(gradient, expected_gradient, atol=tolerance)


def test_fractional_exponents_give_finite_gradients_where_the_reference_gives_nan():
    arrays, _, expected = _reference("extreme_fracgamma_gradon", "float32")
    arguments = _arguments(golden.cases("asl_loss")["extreme_fracgamma_gradon"]["hyper"])
    labels = jnp.asarray(arrays["y"])
    gradient = jax.grad(lambda x: asymmetric_loss(x, labels, **arguments).sum())(
        jnp.asarray(arrays["x"])
    )
    assert np.isnan(expected).sum() == 21
    np.testing.assert_array_equal(gradient[np.isnan(expected)], 0.0)


def test_asymmetric_loss_is_bce_without_focus_and_clip():
    loss = asymmetric_loss(LOGITS, LABELS, gamma_neg=0.0, gamma_pos=0.0, clip=0.0)
    expected = optax.sigmoid_binary_cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    with jax.enable_x64(True):
        logits, labels = LOGITS.astype(jnp.float64), LABELS.astype(jnp.float64)
        loss = asymmetric_loss(logits, labels, gamma_neg=0.0, gamma_pos=0.0, clip=0.0)
        expected = optax.sigmoid_binary_cross_entropy(logits, labels)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_asymmetric_loss_is_focal_loss_with_equal_exponents_and_no_clip():
    with jax.enable_x64(True):
        logits, labels = LOGITS.astype(jnp.float64), LABELS.astype(jnp.float64)

        def ours(logits):
            return asymmetric_loss(
                logits, labels, gamma_neg=2.0, gamma_pos=2.0, clip=None, differentiable_focus=True
            ).sum()

        def focal(logits):
            return optax.sigmoid_focal_loss(logits, labels, gamma=2.0).sum()

        np.testing.assert_allclose(ours(logits), focal(logits), rtol=1e-12)
        np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(focal)(logits), atol=1e-12)


def test_single_label_loss_is_cross_entropy_without_focus_and_smoothing():
    loss = single_label_asymmetric_loss(LOGITS, ONE_HOT, gamma_neg=0.0, smoothing=0.0)
    np.testing.assert_allclose(loss, optax.softmax_cross_entropy(LOGITS, ONE_HOT), rtol=1e-6)


def test_no_clip_equals_clip_zero():
    np.testing.assert_array_equal(
        asymmetric_loss(LOGITS, LABELS, clip=None), asymmetric_loss(LOGITS, LABELS, clip=0.0)
    )


def test_focus_changes_the_gradient_but_not_the_value():
    def total(logits, differentiable):
        return asymmetric_loss(logits, LABELS, differentiable_focus=differentiable).sum()

    detached, detached_gradient = jax.value_and_grad(total)(LOGITS, False)
    flowing, flowing_gradient = jax.value_and_grad(total)(LOGITS, True)
    np.testing.assert_array_equal(detached, flowing)
    assert np.abs(detached_gradient - flowing_gradient).max() > 0.1


def test_unannotated_classes_cost_nothing_and_leave_the_others_alone():
    labels = LABELS.at[:, ::2].set(-1)

    def total(logits, labels):
        return asymmetric_loss(logits, labels, differentiable_focus=True).sum()

    loss = asymmetric_loss(LOGITS, labels)
    np.testing.assert_array_equal(loss[:, ::2], 0.0)
    np.testing.assert_array_equal(loss[:, 1::2], asymmetric_loss(LOGITS, LABELS)[:, 1::2])
    gradient = jax.grad(total)(LOGITS, labels)
    np.testing.assert_array_equal(gradient[:, ::2], 0.0)
    np.testing.assert_array_equal(gradient[:, 1::2], jax.grad(total)(LOGITS, LABELS)[:, 1::2])


def test_single_label_loss_is_zero_for_an_image_without_a_present_class():
    labels = ONE_HOT.at[0].set(-1).at[1].set(0)

    def total(logits):
        return single_label_asymmetric_loss(logits, labels).sum()

    loss = single_label_asymmetric_loss(LOGITS, labels)
    np.testing.assert_array_equal(loss[:2], 0.0)
    assert (loss[2:] > 0).all()
    np.testing.assert_array_equal(jax.grad(total)(LOGITS)[:2], 0.0)


@pytest.mark.parametrize("focus", [False, True])
@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
def test_extreme_logits_give_finite_values_and_gradients(gamma, clip, focus):
    logits = jnp.tile(jnp.array([-1e30, -1e4, -100, -17, 0, 17, 100, 1e4, 1e30]), (4, 1))
    labels = jnp.repeat(jnp.array([0.0, 0.5, 1.0, -1.0])[:, None], 9, axis=1)

    value, gradient = _value_and_gradient(
        logits, labels, gamma_neg=gamma, gamma_pos=gamma, clip=clip, differentiable_focus=focus
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [asymmetric_loss, single_label_asymmetric_loss])
def test_jit_equals_eager(loss):
    np.testing.assert_allclose(
        jax.jit(loss)(LOGITS, ONE_HOT), loss(LOGITS, ONE_HOT), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("loss", [asymmetric_loss, single_label_asymmetric_loss])
def test_half_precision_logits_are_computed_in_float32(loss):
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    computed = loss(half, ONE_HOT)
    assert computed.dtype == jnp.float32
    np.testing.assert_array_equal(computed, loss(half.astype(jnp.float32), ONE_HOT))


@pytest.mark.parametrize("loss", [asymmetric_loss, single_label_asymmetric_loss])
def test_no_silent_promotion_of_array_types(loss):
    with jax.numpy_dtype_promotion("strict"):
        assert loss(jnp.asarray(LOGITS, jnp.bfloat16), ONE_HOT).dtype == jnp.float32
