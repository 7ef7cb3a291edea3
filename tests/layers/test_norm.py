"""Batch norm against the original operation, in groups, and in low precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.layers.norm import ActivatedBatchNorm
from tests import golden
from tests.layers.cases import inputs, nchw, nhwc


@pytest.mark.parametrize("case", golden.names("tresnet_ops", "abn_"))
def test_activated_batch_norm_matches_the_original(case):
    row, expected = golden.cases("tresnet_ops")[case], golden.arrays("tresnet_ops", case)
    slope = row["hyper"]["activation_param"] if "leaky" in case else 1.0
    norm = ActivatedBatchNorm(8, slope=slope)
    norm.use_running_average = not row["hyper"]["training"]
    norm.mean[...] = expected["running_mean"]
    norm.var[...] = expected["running_var"]
    graph, rest = nnx.split(norm)

    def forward(scale, bias, x):
        module = nnx.merge(graph, rest, copy=True)
        module.scale[...], module.bias[...] = scale, bias
        y = module(x)
        return y, (module.mean[...], module.var[...])

    given = inputs(case)
    scale, bias = jnp.asarray(expected["weight"]), jnp.asarray(expected["bias"])
    y, pull_back, (mean, var) = jax.vjp(forward, scale, bias, nhwc(given["x"]), has_aux=True)
    dscale, dbias, dx = pull_back(nhwc(given["cotangent"]))
    np.testing.assert_allclose(nchw(y), expected["y"], atol=1e-5)
    np.testing.assert_allclose(nchw(dx), expected["dx"], atol=1e-5)
    np.testing.assert_allclose(dscale, expected["dweight"], atol=1e-5)
    np.testing.assert_allclose(dbias, expected["dbias"], atol=1e-5)
    np.testing.assert_allclose(mean, expected["new_running_mean"], atol=1e-6)
    np.testing.assert_allclose(var, expected["new_running_var"], atol=1e-6)


def test_batch_norm_groups_normalize_each_slice_alone():
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, 5))
    together = ActivatedBatchNorm(5, slope=0.1)
    grouped = nnx.view(together, batch_norm_groups=2)
    expected = jnp.concatenate([together(x[:2]), together(x[2:])])
    np.testing.assert_allclose(grouped(x), expected, atol=1e-6)


def test_batch_norm_names_groups_that_do_not_divide_the_batch():
    norm = ActivatedBatchNorm(5, slope=0.1, groups=3)
    with pytest.raises(ValueError, match="3 groups do not divide the batch of 4"):
        norm(jnp.zeros((4, 2, 2, 5)))


def test_batch_norm_rejects_one_value_per_channel_in_training():
    with pytest.raises(ValueError, match="more than one value per channel"):
        ActivatedBatchNorm(5, slope=0.1)(jnp.zeros((1, 1, 1, 5)))


def test_batch_norm_computes_statistics_of_bfloat16_maps_in_float32():
    x = (100 + jax.random.normal(jax.random.key(0), (8, 4, 4, 2))).astype(jnp.bfloat16)
    norm = ActivatedBatchNorm(2, slope=1.0)
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32).std((0, 1, 2)), 1.0, atol=2e-2)
