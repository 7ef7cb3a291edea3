"""ML-Decoder with normalized projections, as AAM has it, against the published code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters.systems.ml_decoder import ml_decoder_table
from converters.table import export_tensors, import_tensors
from mljax.heads.ml_decoder import MLDecoder
from tests import golden
from tests.heads.angular_margin import angular_margin, asymmetric, summary

CASES = golden.names("aam_heads", "mld_")
# Those of a narrow decoder.
NARROW = ["mld_am_k230_groups", "mld_asl_k30_g7"]


def _table(head):
    return ml_decoder_table(head, "original")


def _reference_head(case):
    hyper = golden.cases("aam_heads")[case]["hyper"]
    head = nnx.eval_shape(
        lambda: MLDecoder(
            hyper["in_channels"],
            hyper["K"],
            num_groups=hyper["L"],
            embedding_size=hyper["decoder_embedding"],
            scale=23.0 if hyper["loss"] == "am_binary" else None,
            rngs=nnx.Rngs(0),
        )
    )
    head.eval()
    tensors = golden.state_dict("aam_heads", case)
    tensors = {f"head.{name}": tensor for name, tensor in tensors.items()}
    import_tensors(_table(head), tensors, nnx.Dict(head=head))
    return head


@functools.cache
def _found(case, dtype):
    """Returns logits, loss, and the gradients of the features and by the reference's names."""
    head, row = _reference_head(case), golden.cases("aam_heads")[case]
    features = golden.fill_input(*row["inputs"]["map"]["fill"]).transpose(0, 2, 3, 1)
    targets = golden.arrays("aam_heads", case)["targets"]
    normalized = row["hyper"]["loss"] == "am_binary"
    with jax.enable_x64(dtype == "float64"):
        graph, params, rest = nnx.split(head, nnx.Param, ...)
        params, rest = jax.tree.map(lambda x: x.astype(dtype), (params, rest))
        features, targets = jnp.asarray(features, dtype), jnp.asarray(targets, dtype)

        def loss(params, features):
            outputs = nnx.merge(graph, params, rest)(features)
            if normalized:
                cosines = outputs["cosines"]
                return angular_margin(cosines, targets, 23.0, 1.0, 0.0), cosines
            return asymmetric(outputs["logits"], targets), outputs["logits"]

        run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
        (value, logits), (params, features) = run(params, features)
        gradients = nnx.merge(graph, params, rest)
        tensors = export_tensors(_table(gradients), nnx.Dict(head=gradients))
    gradients = {f"g_{name.removeprefix('head.')}": array for name, array in tensors.items()}
    gradients["grad_map"] = np.asarray(features).transpose(0, 3, 1, 2)
    return np.asarray(logits), np.asarray(value), gradients


def _check(case, dtype, suffix, tolerance, relative):
    expected = golden.arrays("aam_heads", case)
    logits, loss, gradients = _found(case, dtype)
    np.testing.assert_allclose(logits, expected["logits" + suffix], atol=tolerance)
    np.testing.assert_allclose(loss, expected["loss" + suffix], rtol=relative)
    # The queries are frozen.
    del gradients["g_decoder.query_embed.weight"]
    for name, gradient in gradients.items():
        theirs = expected[name + suffix]
        ours = summary(gradient.astype(np.float64), len(theirs) - 3)
        np.testing.assert_allclose(ours, theirs, atol=relative * theirs[2], rtol=0, err_msg=name)


@pytest.mark.parametrize(
    "case",
    [c if c in NARROW else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_logits_and_gradients_equal_reference(case):
    _check(case, "float32", "", 1e-5, 1e-5)


@pytest.mark.parametrize("case", NARROW)
def test_logits_and_gradients_equal_reference_in_float64(case):
    _check(case, "float64", "_f64", 1e-12, 1e-10)


def test_half_precision_is_normalized_in_float32():
    arguments = {"embedding_size": 16, "feed_forward_size": 32, "dtype": "bfloat16"}
    head = MLDecoder(8, 6, **arguments, scale=23.0, rngs=nnx.Rngs(0))
    head.eval()
    head.pool[...] = 100 * head.pool[...]
    outputs = nnx.jit(head)(jnp.ones((1, 2, 2, 8), jnp.bfloat16))
    assert {name: x.dtype for name, x in outputs.items()} == dict.fromkeys(outputs, jnp.float32)
    assert np.abs(outputs["cosines"]).max() <= 1 + 1e-6
    np.testing.assert_array_equal(outputs["logits"], 23 * outputs["cosines"])


def test_a_scale_is_above_zero():
    with pytest.raises(ValueError, match="scale must be above 0, got 0"):
        MLDecoder(8, 6, embedding_size=16, scale=0.0, rngs=nnx.Rngs(0))
