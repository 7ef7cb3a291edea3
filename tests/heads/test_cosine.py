"""The cosine head, and pooling as an argument."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.config import Part
from mljax.heads.cosine import Cosine
from mljax.heads.linear import Linear
from mljax.layers.dense import cosines
from mljax.layers.pooling import average_pool, max_pool
from tests import golden

FEATURES = jnp.asarray(golden.fill_input("features", (2, 3, 2, 8), -1, 1))


def test_logits_are_scaled_cosines_of_the_mean_over_space():
    head = Cosine(8, 5, rngs=nnx.Rngs(0))
    outputs = head(FEATURES)
    expected = cosines(FEATURES.mean((1, 2)), head.cosine.kernel[...])
    np.testing.assert_allclose(outputs["cosines"], expected, atol=1e-6)
    np.testing.assert_allclose(outputs["logits"], 30 * expected, atol=1e-5)
    assert outputs["scale"] == 30
    assert set(nnx.to_flat_state(nnx.state(head))[0][0]) == {"cosine", "kernel"}


@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_pooling_is_an_argument(kind):
    pooled = {"average": average_pool(FEATURES), "max": max_pool(FEATURES)}
    pooled["average_plus_max"] = sum(pooled.values())
    for name, vector in pooled.items():
        head = kind(8, 5, pooling=Part(name=name), rngs=nnx.Rngs(0))
        layer = head.cosine if kind is Cosine else head.linear
        found = head(FEATURES)["cosines" if kind is Cosine else "logits"]
        np.testing.assert_allclose(found, layer(vector), atol=1e-6)


def test_two_heads_of_one_structure_are_equal():
    first, second = (Cosine(8, 5, pooling=Part(name="max"), rngs=nnx.Rngs(0)) for _ in range(2))
    assert nnx.graphdef(first) == nnx.graphdef(second)
    assert hash(nnx.graphdef(first)) == hash(nnx.graphdef(second))


def test_a_scale_is_above_zero():
    with pytest.raises(ValueError, match="scale must be above 0, got -1"):
        Cosine(8, 5, scale=-1.0, rngs=nnx.Rngs(0))


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="unknown pooling 'maximum'; did you mean max"):
        Cosine(8, 5, pooling=Part(name="maximum"), rngs=nnx.Rngs(0))
