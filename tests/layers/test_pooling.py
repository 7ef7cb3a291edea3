"""Pooling and space to depth against the original operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.layers import POOLINGS
from mljax.layers.pooling import (
    average_plus_max_pool,
    blur_pool,
    ceil_average_pool,
    max_pool,
    space_to_depth,
)
from tests import golden
from tests.layers.cases import inputs, nchw, nhwc


def test_space_to_depth_orders_channels_as_the_original():
    x = inputs("s2d")["x"]
    np.testing.assert_array_equal(
        nchw(space_to_depth(nhwc(x))), golden.arrays("tresnet_ops", "s2d")["y"]
    )


def test_space_to_depth_names_the_size_that_does_not_fit():
    with pytest.raises(ValueError, match="multiples of 4, got 8 x 10"):
        space_to_depth(jnp.zeros((1, 8, 10, 3)))


@pytest.mark.parametrize("case", golden.names("tresnet_ops", "aa_"))
def test_blur_pool_and_its_gradient_match_the_original(case):
    given, expected = inputs(case), golden.arrays("tresnet_ops", case)
    y, pull_back = jax.vjp(blur_pool, nhwc(given["x"]))
    (dx,) = pull_back(nhwc(given["cotangent"]))
    np.testing.assert_allclose(nchw(y), expected["y"], atol=1e-6)
    np.testing.assert_allclose(nchw(dx), expected["dx"], atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (2, 3, 5, 3), (2, 7, 4, 1)])
def test_blur_pool_has_the_bits_of_its_formula(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    rows = wide[:, :-2:2] + 2 * wide[:, 1:-1:2] + wide[:, 2::2]
    expected = (rows[:, :, :-2:2] + 2 * rows[:, :, 1:-1:2] + rows[:, :, 2::2]) / 16
    np.testing.assert_array_equal(blur_pool(x), expected)


def test_blur_pool_rejects_a_map_of_one_pixel():
    with pytest.raises(ValueError, match="at least 2 x 2, got 1 x 1"):
        blur_pool(jnp.zeros((1, 1, 1, 4)))


def test_ceil_average_pool_averages_over_existing_pixels():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(ceil_average_pool(x)[0, :, :, 0], [[2.0, 3.5], [6.5, 8.0]])


def test_max_pool_sends_its_gradient_to_the_first_of_equals():
    x = jnp.array([[1.0, 3.0], [3.0, 2.0]])[None, :, :, None]
    assert max_pool(x) == 3
    gradient = jax.grad(lambda x: average_plus_max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0.25, 1.25], [0.25, 0.25]])


def test_pooling_is_in_float32():
    for pool in POOLINGS.values():
        assert pool(jnp.ones((2, 3, 2, 5), jnp.bfloat16)).dtype == jnp.float32
