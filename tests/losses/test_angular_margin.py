"""The angular margin loss, and ASL as that code base has it, against their values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.losses import LOSSES
from mljax.losses.angular_margin import angular_margin_loss
from mljax.losses.asymmetric import asymmetric_loss
from mljax.training.objective import Term, total_loss
from tests import golden

PRECISIONS = pytest.mark.parametrize("dtype", ["float32", "float64"])
COSINES = jnp.linspace(-1, 1, 24, dtype=jnp.float32).reshape(4, 6)
LABELS = (jnp.arange(24).reshape(4, 6) % 3 == 0).astype(jnp.float32)
FOCUSED = {"margin": 0.0, "present_share": 0.7, "gamma_neg": 2.0, "gamma_pos": 1.0}
NAMES = {
    "m": "margin",
    "k": "present_share",
    "gamma_neg": "gamma_neg",
    "gamma_pos": "gamma_pos",
    "probability_margin": "clip",
    "label_smooth": "smoothing",
}


def _arguments(hyper):
    constructor, call = hyper["constructor"], hyper["call"]
    kwargs = {NAMES[key]: float(value) for key, value in constructor.items() if key != "s"}
    arrays = {"scale": float(call.get("scale", constructor["s"]))}
    if "aug_index" in call:
        arrays |= {"mixed_with": jnp.asarray(call["aug_index"]), "mixed_share": call["lam"]}
    return arrays | kwargs


def _assert_equal(group, case, dtype, loss):
    """Compares the sum and its gradient with a case's; where float32 gave nan, with its twin."""
    arrays = golden.arrays(group, case)
    with jax.enable_x64(dtype == "float64"):
        labels = jnp.asarray(arrays["targets"], dtype)
        # Compiled whole, since compiling op by op takes ten times as long.
        run = jax.jit(jax.value_and_grad(lambda x: loss(x, labels).sum()))
        value, gradient = run(jnp.asarray(arrays["logits"], dtype))
    suffix = "_f64" if dtype == "float64" or np.isnan(arrays["loss"]) else ""
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(value, arrays["loss" + suffix], rtol=tolerance)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(gradient, arrays["grad" + suffix], rtol=tolerance, atol=tolerance)


@PRECISIONS
@pytest.mark.parametrize("case", golden.names("aam_loss"))
def test_angular_margin_loss_equals_reference(case, dtype):
    arguments = _arguments(golden.cases("aam_loss")[case]["hyper"])
    _assert_equal("aam_loss", case, dtype, lambda x, y: angular_margin_loss(x, y, **arguments))


@PRECISIONS
@pytest.mark.parametrize("case", golden.names("aam_asl"))
def test_asymmetric_loss_is_also_that_of_the_angular_code_base(case, dtype):
    hyper = golden.cases("aam_asl")[case]["hyper"]
    # The class's own defaults, then the case's.
    given = {"gamma_neg": 4, "gamma_pos": 0} | hyper["constructor"]
    kwargs = {NAMES[key]: float(value) for key, value in given.items()}
    scale = hyper["call"].get("scale", 1.0)
    _assert_equal(
        "aam_asl",
        case,
        dtype,
        lambda x, y: asymmetric_loss(scale * x, y, differentiable_focus=True, **kwargs),
    )


def test_scaled_loss_without_margin_and_focus_is_weighted_cross_entropy():
    loss = angular_margin_loss(COSINES, LABELS, 10.0, margin=0.0, present_share=0.5)
    expected = asymmetric_loss(
        10 * COSINES, LABELS, gamma_neg=0.0, gamma_pos=0.0, clip=0.0, eps=0.0
    )
    np.testing.assert_allclose(loss, 0.5 / 10 * expected, rtol=1e-4, atol=1e-7)


def test_printed_exponents_exchange_the_gammas():
    printed = angular_margin_loss(COSINES, LABELS, 17.0, printed_exponents=True, **FOCUSED)
    exchanged = FOCUSED | {"gamma_neg": 1.0, "gamma_pos": 2.0}
    np.testing.assert_array_equal(printed, angular_margin_loss(COSINES, LABELS, 17.0, **exchanged))
    assert np.abs(printed - angular_margin_loss(COSINES, LABELS, 17.0, **FOCUSED)).max() > 1e-3


def test_unannotated_classes_cost_nothing_and_leave_the_others_alone():
    labels = LABELS.at[:, ::2].set(-1)

    def total(cosines, labels):
        return angular_margin_loss(cosines, labels, 17.0, smoothing=0.1, **FOCUSED).sum()

    loss = angular_margin_loss(COSINES, labels, 17.0, **FOCUSED)
    whole = angular_margin_loss(COSINES, LABELS, 17.0, **FOCUSED)
    np.testing.assert_array_equal(loss[:, ::2], 0.0)
    np.testing.assert_array_equal(loss[:, 1::2], whole[:, 1::2])
    gradient, expected = (jax.grad(total)(COSINES, each) for each in (labels, LABELS))
    np.testing.assert_array_equal(gradient[:, ::2], 0.0)
    np.testing.assert_array_equal(gradient[:, 1::2], expected[:, 1::2])


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("scale", [17.0, 1e3, 1e6])
def test_any_scale_gives_finite_values_and_gradients(scale, gamma, clip):
    cosines = jnp.tile(jnp.array([-1.3, -1, -0.5, 0, 0.5, 1, 1.3]), (4, 1))
    labels = jnp.repeat(jnp.array([0.0, 0.5, 1.0, -1.0])[:, None], 7, axis=1)
    value, gradient = jax.value_and_grad(
        lambda x: angular_margin_loss(
            x, labels, scale, gamma_neg=gamma, gamma_pos=gamma, clip=clip
        ).sum()
    )(cosines)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_jit_equals_eager_and_half_precision_is_computed_in_float32():
    half = jnp.asarray(COSINES, jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        computed = jax.jit(angular_margin_loss)(half, LABELS, jnp.float32(17.0))
    assert computed.dtype == jnp.float32
    expected = angular_margin_loss(half.astype(jnp.float32), LABELS, 17.0)
    np.testing.assert_allclose(computed, expected, rtol=1e-6, atol=1e-9)


def test_a_head_gives_cosines_and_their_scale_and_a_batch_what_was_mixed():
    term = Term(
        name="angular_margin_loss",
        function=LOSSES["angular_margin_loss"],
        kwargs={"margin": 0.1},
        reduction="sum",
        weight=1.0,
    )
    batch = {"labels": LABELS, "valid": jnp.ones(4, bool)}
    outputs = {"logits": 20 * COSINES, "cosines": COSINES, "scale": jnp.float32(20)}
    total, _ = total_loss([term], outputs, batch)
    expected = angular_margin_loss(COSINES, LABELS, 20.0, margin=0.1).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    order, share = jnp.array([2, 3, 0, 1]), 0.25
    mixed = batch | {"mixed_with": order, "mixed_share": share}
    soft = angular_margin_loss(COSINES, share * LABELS + 0.75 * LABELS[order], 20.0, margin=0.1)
    np.testing.assert_allclose(total_loss([term], outputs, mixed)[0], soft.sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="reads cosines, scale, but the head and the batch give"):
        total_loss([term], {"logits": COSINES}, batch)
