"""MulCon's whole network against the published code: logits, embeddings, attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import from_torch
from tests import golden

pytestmark = pytest.mark.slow


def _read(case):
    expected = golden.arrays("mulcon_model", case)
    fill = golden.cases("mulcon_model")[case]["inputs"]["img"]["fill"]
    images = jnp.asarray(golden.fill_input(*fill).transpose(0, 2, 3, 1))
    return from_torch(golden.state_dict("mulcon_model", case)), images, expected


@functools.partial(jax.jit, static_argnums=0)
def _outputs(graph, state, images):
    return nnx.merge(graph, state)(images)


def test_outputs_of_the_whole_network_equal_reference():
    model, images, expected = _read("eval_k20_64")
    outputs = _outputs(*nnx.split(model), images)
    np.testing.assert_allclose(outputs["logits"], expected["pred"], atol=1e-4)
    found = np.asarray(outputs["embeddings"]).ravel()[:64]
    np.testing.assert_allclose(found, expected["label_feat_first64"], atol=1e-4)
    # There the heads of all images are one after the other.
    attention = np.moveaxis(np.asarray(outputs["attention"]), 1, 0)
    np.testing.assert_allclose(attention.ravel()[:64], expected["attn_first64"], atol=1e-4)
