"""CSRA against the published code's logits, loss and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mljax.heads.csra import CSRA, TEMPERATURES
from tests import golden


def _reference(case, dtype):
    row = golden.cases("csra_head")[case]
    hyper = row["hyper"]
    temperatures = [None if t == 99 else t for t in hyper["temperatures"]]
    head = nnx.eval_shape(
        lambda: CSRA(
            hyper["C"],
            hyper["K"],
            temperatures=temperatures,
            weight=hyper["lam"],
            rngs=nnx.Rngs(0),
        )
    )
    weights = golden.state_dict("csra_head", case).values()
    head.kernel.set_value(jnp.asarray([w[:, :, 0, 0].T for w in weights], dtype))
    features = golden.fill_input(*row["inputs"]["map"]["fill"]).transpose(0, 2, 3, 1)
    drawn = row["inputs"]["labels"]
    labels = golden.fill_input(*drawn["threshold"]["fill_input"]) < drawn["positive_if_below"]
    return head, jnp.asarray(features, dtype), jnp.asarray(labels, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", golden.names("csra_head"))
def test_logits_loss_and_gradients_equal_reference(case, dtype):
    expected = golden.arrays("csra_head", case)
    suffix, tolerance = ("", 1e-5) if dtype == "float32" else ("_f64", 1e-12)
    with jax.enable_x64(dtype == "float64"):
        head, features, labels = _reference(case, dtype)
        graph, params = nnx.split(head)

        def loss(params, features):
            logits = nnx.merge(graph, params)(features)["logits"]
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), logits

        run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (value, logits), (slopes, along_map) = run(params, features)
    np.testing.assert_allclose(logits, expected["logits" + suffix], atol=tolerance, rtol=1e-6)
    np.testing.assert_allclose(value, expected["loss" + suffix], rtol=1e-6)
    along_map = np.asarray(along_map).transpose(0, 3, 1, 2)
    if case == "full":
        first = along_map.ravel()[:64]
        np.testing.assert_allclose(first, expected["grad_map_first64"], atol=1e-6)
        return
    np.testing.assert_allclose(along_map, expected["grad_map" + suffix], atol=tolerance)
    for number, slope in enumerate(slopes["kernel"][...]):
        name = f"grad_param:classifier.multi_head.{number}.head.weight{suffix}"
        np.testing.assert_allclose(slope.T[..., None, None], expected[name], atol=tolerance)


def test_a_class_vector_of_zeros_has_finite_logits_and_gradients():
    head = CSRA(4, 2, temperatures=TEMPERATURES[2], rngs=nnx.Rngs(0))
    head.kernel[...] = head.kernel[...].at[:, :, 0].set(0)
    graph, params = nnx.split(head)
    features = jnp.ones((1, 2, 2, 4))
    run = jax.value_and_grad(lambda params: nnx.merge(graph, params)(features)["logits"].sum())
    value, slopes = jax.jit(run)(params)
    assert np.isfinite(value)
    assert np.isfinite(slopes["kernel"][...]).all()


@pytest.mark.parametrize("temperatures", [(), (1, 0), (-1,)])
def test_temperatures_must_be_positive(temperatures):
    with pytest.raises(ValueError, match="temperatures must be one number above 0"):
        CSRA(4, 2, temperatures=temperatures, rngs=nnx.Rngs(0))
