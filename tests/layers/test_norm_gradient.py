"""The written-out gradient of batch norm against that of its formula, and what it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.layers.norm import normalize_batch

EPS, SLOPE = 1e-5, 0.1


def by_formula(x, gain, bias):
    axes = tuple(range(1, x.ndim - 1))
    mean = x.mean(axes, keepdims=True)
    var = jnp.square(x - mean).mean(axes, keepdims=True)
    shape = (1,) * (x.ndim - 1) + gain.shape
    z = (x - mean) / jnp.sqrt(var + EPS) * gain.reshape(shape) + bias.reshape(shape)
    return jnp.where(z < 0, SLOPE * z, z), mean.reshape(-1, len(gain)), var.reshape(-1, len(gain))


@pytest.mark.parametrize("shape", [(1, 6, 4, 3, 5), (3, 2, 4, 3, 5), (2, 8, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_outputs_statistics_and_gradients_are_those_of_the_formula(shape, dtype, tolerance):
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == np.float64):
        # Gains below zero too, and channels whose means are many deviations from zero.
        x = jnp.asarray(rng.normal(size=shape) + 5 * np.arange(shape[-1]), dtype)
        gain, bias, cotangent = (
            jnp.asarray(rng.normal(size=s), dtype) for s in (shape[-1:], shape[-1:], shape)
        )

        @jax.jit
        def run(x, gain, bias, cotangent):
            found, pull = jax.vjp(lambda *a: normalize_batch(*a, EPS, SLOPE), x, gain, bias)
            expected, expected_pull = jax.vjp(by_formula, x, gain, bias)
            zeros = jax.tree.map(jnp.zeros_like, found[1:])
            return (found, pull((cotangent, *zeros))), (
                expected,
                expected_pull((cotangent, *zeros)),
            )

        found, expected = run(x, gain, bias, cotangent)
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert ours.dtype == dtype
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * 10)


def test_a_large_mean_does_not_cancel_the_deviation():
    noise = np.random.default_rng(0).normal(size=(1, 64, 8, 8, 4))
    x = jnp.asarray(1000 + 0.1 * noise, jnp.float32)
    y, mean, var = jax.jit(normalize_batch, static_argnums=(3, 4))(
        x, jnp.ones(4), jnp.zeros(4), EPS, 1.0
    )
    exact = np.asarray(x, float)
    np.testing.assert_allclose(var, exact.var((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(mean, exact.mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(np.std(y, (0, 1, 2, 3)), 1.0, atol=1e-3)


def test_one_map_far_from_all_others_keeps_the_variance():
    x = np.zeros((1, 64, 4, 4, 1), np.float32) + np.float32(1 / 3)
    x[0, 0] = 1e4
    var = normalize_batch(jnp.asarray(x), jnp.ones(1), jnp.zeros(1), EPS, 1.0)[2]
    # 64 maps: 64 times the rounding of a sum of 1,024 values.
    np.testing.assert_allclose(var, x.astype(float).var((1, 2, 3)), rtol=1e-3)


def test_it_keeps_its_input_alone_for_the_backward_pass():
    x = jnp.ones((1, 4, 8, 8, 6))
    _, pull = jax.vjp(lambda *a: normalize_batch(*a, EPS, SLOPE), x, jnp.ones(6), jnp.ones(6))
    large = [a for a in jax.tree.leaves(pull) if a.size >= x.size]
    assert [a.shape for a in large] == [x.shape]
