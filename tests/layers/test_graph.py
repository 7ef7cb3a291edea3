"""Adjacency of the classes and the layers over it, against the published code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.data.co_occurrence import conditional_probabilities
from mljax.layers.graph import (
    GraphAttention,
    GraphConvolution,
    adjacency,
    normalized_adjacency,
)
from tests import golden

FINITE = [c for c in golden.names("aam_graph", "adj") if "rho0" not in c and "empty" not in c]


def _probabilities(case):
    """Returns P of a case of instance counts: images with both, over instances."""
    instances = golden.arrays("aam_graph", case)["counts"]
    present = (instances > 0).astype(np.int64)
    pairs = present.T @ present
    np.fill_diagonal(pairs, 0)
    return conditional_probabilities(pairs, instances.sum(0).astype(np.int64))


def _edges(case, probabilities):
    hyper = golden.cases("aam_graph")[case]["hyper"]
    return adjacency(probabilities, threshold=hyper["tau"], reweight=hyper["rho"])


@pytest.mark.parametrize("case", FINITE)
def test_the_graph_of_aam_equals_reference(case):
    expected = golden.arrays("aam_graph", case)
    probabilities = _probabilities(case)
    np.testing.assert_allclose(probabilities, expected["P"], rtol=1e-15)
    edges = _edges(case, probabilities)
    np.testing.assert_allclose(edges, expected["A"], rtol=1e-15)
    found = normalized_adjacency(jnp.asarray(edges, jnp.float32))
    np.testing.assert_allclose(found, expected["adj"], atol=1e-6)


def test_a_class_without_instances_is_alone_where_the_reference_is_nan():
    case = "adj_k6_emptyclass"
    expected, probabilities = golden.arrays("aam_graph", case), _probabilities(case)
    assert np.isnan(expected["A"]).all() and np.isnan(expected["adj"]).all()
    (empty,) = np.flatnonzero(np.isnan(expected["P"]).all(1))
    np.testing.assert_array_equal(probabilities, np.nan_to_num(expected["P"]))
    edges = _edges(case, probabilities)
    np.testing.assert_array_equal(edges[empty], np.eye(6)[empty])
    np.testing.assert_array_equal(edges[:, empty], np.eye(6)[empty])
    # The file of the original has nan there.
    np.testing.assert_array_equal(_edges(case, expected["P"]), edges)
    others = np.delete(np.arange(6), empty)
    without = _edges(case, probabilities[np.ix_(others, others)])
    np.testing.assert_array_equal(edges[np.ix_(others, others)], without)
    assert np.isfinite(normalized_adjacency(jnp.asarray(edges))).all()


def test_a_class_without_edges_has_zeros_where_the_reference_is_nan():
    case = "adj_k5_rho0"
    expected = golden.arrays("aam_graph", case)
    edges = _edges(case, _probabilities(case))
    np.testing.assert_array_equal(edges, expected["A"])
    found = np.asarray(normalized_adjacency(jnp.asarray(edges, jnp.float32)))
    same = np.isfinite(expected["adj"])
    np.testing.assert_allclose(found[same], expected["adj"][same], atol=1e-6)
    np.testing.assert_array_equal(found[~same], 0)


@pytest.mark.parametrize("case", golden.names("mlgcn_adj"))
def test_the_graph_of_ml_gcn_equals_reference(case):
    hyper, expected = golden.cases("mlgcn_adj")[case]["hyper"], golden.arrays("mlgcn_adj", case)
    probabilities = conditional_probabilities(expected["counts"], expected["nums"])
    edges = adjacency(probabilities, threshold=hyper["t"], reweight=hyper["p"])
    assert np.isfinite(edges).all()
    if case == "absent_class":
        assert np.isnan(expected["A_f64"]).any()
        return
    np.testing.assert_allclose(edges, expected["A_f64"], rtol=1e-15)
    found = normalized_adjacency(jnp.asarray(edges, jnp.float32))
    np.testing.assert_allclose(found, expected["adj"], atol=1e-6)


def _tensors(group, case):
    return {k.split(".")[-1]: v for k, v in golden.state_dict(group, case).items()}


def _aam_layer(case):
    tensors = _tensors("aam_graph", case)
    if "W" not in tensors:
        layer = GraphConvolution(*tensors["weight"].shape, rngs=nnx.Rngs(0))
        layer.kernel[...] = tensors["weight"]
        return layer, {"kernel": "weight"}
    layer = GraphAttention(*tensors["W"].shape, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.scores[...] = tensors["W"], tensors["a"].reshape(2, -1)
    return layer, {"kernel": "W", "scores": "a"}


@jax.jit
def _outputs_and_gradients(layer, x, edges, cotangent):
    outputs, pull = jax.vjp(lambda layer, x: layer(x, normalized_adjacency(edges)), layer, x)
    return outputs, *pull(cotangent)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", golden.names("aam_graph", "gat_layer", "gcn_layer"))
def test_layers_and_gradients_equal_reference(case, dtype):
    row, expected = golden.cases("aam_graph")[case], golden.arrays("aam_graph", case)
    layer, names = _aam_layer(case)
    layer.eval()
    x, cotangent = (golden.fill_input(*row["inputs"][n]["fill"]) for n in ("x", "cotangent"))
    # A is stored in float32, which the reference's float64 did not round.
    suffix, tolerance = ("", 1e-5) if dtype == "float32" else ("_f64", 1e-7)
    with jax.enable_x64(dtype == "float64"):
        given = (layer, x, expected["A"], cotangent)
        given = jax.tree.map(lambda a: jnp.asarray(a, dtype), given)
        y, layer_gradient, x_gradient = _outputs_and_gradients(*given)
    found = {"y": y, "grad_x": x_gradient}
    for ours, theirs in names.items():
        found[f"grad_{theirs}"] = getattr(layer_gradient, ours)[...]
    for name, array in found.items():
        theirs = expected[name + suffix]
        ours = np.reshape(array, theirs.shape)
        np.testing.assert_allclose(ours, theirs, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", ["gconv", "gconv_bias"])
def test_the_convolution_of_ml_gcn_equals_reference(case):
    row, expected = golden.cases("mlgcn_model")[case], golden.arrays("mlgcn_model", case)
    tensors = _tensors("mlgcn_model", case)
    shape = tensors["weight"].shape
    layer = GraphConvolution(*shape, use_bias="bias" in tensors, rngs=nnx.Rngs(0))
    layer.kernel[...] = tensors["weight"]
    if "bias" in tensors:
        layer.bias[...] = tensors["bias"].ravel()
    inputs = {n: jnp.asarray(golden.fill_input(*e["fill"])) for n, e in row["inputs"].items()}
    cotangent = inputs["cot"].reshape(-1, shape[1])

    def score(layer, x):
        return (layer(x, inputs["adj"]) * cotangent).sum()

    layer_gradient, x_gradient = jax.jit(jax.grad(score, (0, 1)))(layer, inputs["x"])
    found = {
        "out": layer(inputs["x"], inputs["adj"]),
        "grad_x": x_gradient,
        "grad_param:gc1.weight": layer_gradient.kernel[...],
    }
    for name, array in found.items():
        theirs = expected[name]
        np.testing.assert_allclose(np.reshape(array, theirs.shape), theirs, atol=1e-5)


def test_layers_start_as_in_torch():
    convolution = GraphConvolution(64, 100, rngs=nnx.Rngs(0)).kernel[...]
    assert 0.095 < np.abs(convolution).max() <= 0.1
    attention = GraphAttention(60, 40, rngs=nnx.Rngs(0))
    for array, total in ((attention.kernel[...], 100), (attention.scores[...], 81)):
        bound = 1.414 * (6 / total) ** 0.5
        assert 0.9 * bound < np.abs(array).max() <= bound


def test_an_adjacency_that_is_not_known_yet_makes_all_nan():
    edges = jnp.full((3, 3), jnp.nan)
    for kind in (GraphConvolution, GraphAttention):
        layer = kind(4, 2, rngs=nnx.Rngs(0))
        layer.eval()
        assert np.isnan(layer(jnp.ones((3, 4)), edges)).all()


def test_attention_is_dropped_in_training():
    layer, edges = GraphAttention(4, 2, dropout=0.5, rngs=nnx.Rngs(0)), jnp.ones((3, 3))
    x = jnp.asarray(golden.fill_input("x", (3, 4), -1, 1))
    first, second = (layer(x, edges, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert np.abs(first - second).max() > 0
