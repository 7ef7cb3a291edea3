"""SupCon's projection head; its numbers are checked with its converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.heads.projection import Projection


@pytest.mark.parametrize("hidden", [True, False])
def test_projections_have_length_one_and_finite_gradients_even_at_zero(hidden):
    head = Projection(6, 3, size=5, hidden=hidden, rngs=nnx.Rngs(0))
    features = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    outputs = head(features)
    np.testing.assert_allclose(jnp.linalg.norm(outputs["projections"], axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(outputs["pooled"], features.mean((1, 2)), rtol=1e-6)
    head.output.bias.set_value(jnp.zeros(5))
    if head.hidden is not None:
        head.hidden.bias.set_value(jnp.zeros(6))
    gradient = jax.grad(lambda x: head(x)["projections"].sum())(jnp.zeros((2, 3, 4, 6)))
    assert np.isfinite(gradient).all()
