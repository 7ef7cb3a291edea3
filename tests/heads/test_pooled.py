"""The head of a backbone alone."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.heads.pooled import Pooled


@pytest.mark.parametrize("size", [1, 7])
def test_the_output_is_the_mean_over_space(size):
    features = np.random.default_rng(0).normal(size=(2, size, size + 1, 5)).astype(np.float32)
    outputs = Pooled(5, 0, rngs=nnx.Rngs(0))(jnp.asarray(features))
    assert outputs.keys() == {"pooled"}
    np.testing.assert_allclose(outputs["pooled"], features.mean((1, 2)), atol=1e-6)


def test_half_precision_is_averaged_in_float32():
    outputs = Pooled(5, 0, rngs=nnx.Rngs(0))(jnp.ones((1, 2, 2, 5), jnp.bfloat16))
    assert outputs["pooled"].dtype == jnp.float32


def test_classes_are_refused():
    with pytest.raises(ValueError, match="no classifier.*num_classes 4"):
        Pooled(5, 4, rngs=nnx.Rngs(0))
