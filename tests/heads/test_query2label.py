"""Query2Label against both published codes: values, gradients, positions, initial values.

Not compared: `gwl_nobias`, since no published network leaves out the bias; `tiny_batch1`, `h256`
and `h256_proj`, whose parts the other cases have, and the whole networks with a projection; of AAM
`q2l_asl_64`, another size of `q2l_asl`, and `q2l_am`, which raises: a formula tests cosines.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from converters.reference.query2label import query2label_logits
from converters.systems.query2label import query2label_table
from converters.table import export_tensors, import_tensors
from mljax.heads.query2label import Query2Label, sine_positions
from tests import golden

# Pre-norm without self-attention, which the original promises and cannot compute.
RAISES = "tiny_prenorm_default"
TINY = [
    name if name in ("tiny", "tiny_extreme") else pytest.param(name, marks=pytest.mark.slow)
    for name in golden.names("q2l_head", "tiny")
    if name != RAISES
]
SMALL = {"num_heads": 2, "feed_forward_size": 12, "encoder_layers": 0, "decoder_layers": 1}


def _arguments(group, case):
    """Returns the reference's features, classes and arguments of a case as ours."""
    hyper = golden.cases(group)[case]["hyper"]
    if group == "aam_q2l":
        size = {"embedding_size": hyper["C"], "feed_forward_size": hyper["C"]}
        return hyper["C"], hyper["K"], size | {"learned_slope": True}
    kept = (hyper["keep_first_self_attn_dec"], hyper["keep_other_self_attn_dec"])
    return (
        hyper["channels"],
        hyper["num_class"],
        {
            "feed_forward_size": hyper["dim_feedforward"],
            "encoder_layers": hyper["enc_layers"],
            "self_attention": [layer for layer, keep in enumerate(kept) if keep],
            "pre_norm": hyper["pre_norm"],
        },
    )


@functools.cache
def _reference_head(group, case):
    features, classes, arguments = _arguments(group, case)
    head = nnx.eval_shape(lambda: Query2Label(features, classes, **arguments, rngs=nnx.Rngs(0)))
    head.eval()
    import_tensors(_table(group, head), golden.state_dict(group, case), nnx.Dict(head=head))
    return head


def _table(group, head):
    names = ("fc.weight", "fc.bias") if group == "aam_q2l" else ("fc.W", "fc.b")
    return query2label_table(head, names)


@functools.partial(jax.jit, static_argnums=0)
def _score(graph, params, rest, features, cotangent):
    def score(params, features):
        logits = nnx.merge(graph, params, rest)(features)["logits"]
        return (logits * cotangent).sum(), logits

    return jax.value_and_grad(score, (0, 1), has_aux=True)(params, features)


@functools.cache
def _run(group, case, dtype):
    """Returns the logits, the gradients by torch name and that of the map in torch's order."""
    head = _reference_head(group, case)
    inputs = golden.cases(group)[case]["inputs"]
    features = golden.fill_input(*inputs["map"]["fill"]).transpose(0, 2, 3, 1)
    cotangent = np.ones((len(features), head.kernel.shape[0]))
    if "cot" in inputs:
        cotangent = golden.fill_input(*inputs["cot"]["fill"])
    graph, params, rest = nnx.split(head, nnx.Param, ...)
    with jax.enable_x64(dtype == "float64"):
        params, rest = jax.tree.map(lambda x: x.astype(dtype), (params, rest))
        features, cotangent = jnp.asarray(features, dtype), jnp.asarray(cotangent, dtype)
        (_, logits), (slopes, along_map) = _score(graph, params, rest, features, cotangent)
        gradients = nnx.merge(graph, slopes, rest)
        tensors = export_tensors(_table(group, gradients), nnx.Dict(head=gradients))
    return logits, tensors, np.asarray(along_map).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("case", TINY)
def test_logits_and_gradients_equal_reference(case):
    expected = golden.arrays("q2l_head", case)
    logits, gradients, along_map = _run("q2l_head", case, "float32")
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
    np.testing.assert_allclose(along_map, expected["grad_map"], atol=1e-5)
    norms = {name: np.linalg.norm(value) for name, value in gradients.items()}
    wanted = {name: expected[f"gradnorm:{name}"] for name in norms}
    # The gradient of the keys' bias is 0 but for rounding, whatever the network.
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_form_of_deep_object_reid_equals_reference():
    expected = golden.arrays("aam_q2l", "q2l_asl")
    logits, _, along_map = _run("aam_q2l", "q2l_asl", "float32")
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
    summary = [along_map.mean(), along_map.std(), np.abs(along_map).max()]
    summary = [*summary, *along_map.ravel()[:64]]
    np.testing.assert_allclose(summary, expected["grad_map"], atol=1e-5)
    table = sine_positions(3, 3, 32).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(table, expected["pe"], atol=1e-6)


@pytest.mark.slow
def test_pre_norm_without_self_attention_works_where_the_original_raises():
    inputs = golden.cases("q2l_head")[RAISES]["inputs"]
    weights = {
        name: torch.tensor(array) for name, array in golden.state_dict("q2l_head", RAISES).items()
    }
    features = torch.tensor(golden.fill_input(*inputs["map"]["fill"]))
    logits, _, _ = _run("q2l_head", RAISES, "float32")
    expected = query2label_logits(weights, features, pre_norm=True)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.slow
def test_the_published_head_equals_reference():
    expected = golden.arrays("q2l_head", "h2048")
    logits, _, along_map = _run("q2l_head", "h2048", "float32")
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
    first = along_map.ravel()[:64]
    np.testing.assert_allclose(first, expected["grad_map_first64"], atol=1e-5)


@pytest.mark.slow
def test_logits_and_gradients_equal_reference_in_float64():
    expected = golden.arrays("q2l_head", "tiny")
    logits, _, along_map = _run("q2l_head", "tiny", "float64")
    # The table of positions is float32 there and here.
    np.testing.assert_allclose(logits, expected["logits_f64"], atol=1e-6)
    np.testing.assert_allclose(along_map, expected["grad_map_f64"], atol=1e-6)


@pytest.mark.parametrize("case", ["gwl_small", "gwl_extreme"])
def test_each_class_reads_its_own_query(case):
    expected, inputs = golden.arrays("q2l_head", case), golden.cases("q2l_head")[case]["inputs"]
    decoded = golden.fill_input(*inputs["x"]["fill"])
    weights = golden.state_dict("q2l_head", case)
    classes, size = weights["fc.W"].shape[1:]
    head = nnx.eval_shape(lambda: Query2Label(size, classes, **SMALL, rngs=nnx.Rngs(0)))
    head.kernel.set_value(jnp.asarray(weights["fc.W"][0]))
    head.bias.set_value(jnp.asarray(weights["fc.b"][0]))
    found = head.classify(jnp.asarray(decoded))["logits"]
    np.testing.assert_allclose(found, expected["out"], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("case", golden.names("q2l_head", "pos_"))
def test_positions_equal_reference(case):
    hyper = golden.cases("q2l_head")[case]["hyper"]
    table = sine_positions(
        hyper["H"], hyper["W"], 2 * hyper["num_pos_feats"], normalize=hyper["normalize"]
    )
    expected = golden.arrays("q2l_head", case)
    if "pe" in expected:
        np.testing.assert_allclose(table, expected["pe"][0].transpose(1, 2, 0), atol=1e-6)
        return
    found = {"pe_row1_col2": table[1, 2], "pe_last_cell": table[-1, -1]}
    for name, cell in found.items():
        np.testing.assert_allclose(cell, expected[name], atol=1e-6)


@functools.cache
def _head(**arguments):
    """Returns a small head, filled here, since initial values would be compiled first."""
    head = nnx.eval_shape(lambda: Query2Label(8, 3, **(SMALL | arguments), rngs=nnx.Rngs(0)))
    for path, variable in nnx.to_flat_state(nnx.state(head, nnx.Param)):
        name = ".".join(map(str, path))
        low = 0.5 if name.endswith("scale") else -0.5
        variable.set_value(jnp.asarray(golden.fill_input(name, variable.shape, low, low + 1)))
    return head


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph, state, features, key):
    return nnx.merge(graph, state)(features, rngs=nnx.Rngs(dropout=key))["logits"]


@pytest.mark.slow
@pytest.mark.usefixtures("little_optimization")
def test_dropout_is_random_in_training_and_off_in_eval_mode():
    features = jnp.asarray(golden.fill_input("features", (1, 2, 3, 8), -1, 2))
    features = jnp.concatenate([features, features])
    training = nnx.split(nnx.view(_head(dropout=0.5, self_attention=(0,)), deterministic=False))
    first, again, second = (_apply(*training, features, jax.random.key(n)) for n in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).min() > 0
    # Two equal images drop different entries.
    assert np.abs(first[0] - first[1]).min() > 0
    evaluated = nnx.split(nnx.view(_head(dropout=0.5, self_attention=(0,)), deterministic=True))
    found = _apply(*evaluated, features, jax.random.key(0))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_every_part_is_trained():
    _, gradients, _ = _run("q2l_head", "tiny", "float32")
    silent = {name for name, value in gradients.items() if np.abs(value).max() < 1e-6}
    assert silent == set()


@pytest.mark.usefixtures("little_optimization")
def test_with_a_scale_the_logits_are_scaled_cosines():
    head = _head(scale=20.0)
    decoded = jnp.asarray(golden.fill_input("decoded", (2, 3, 8), -1, 2))
    found = head.classify(decoded)
    lengths = jnp.linalg.norm(decoded, axis=-1) * jnp.linalg.norm(head.kernel[...], axis=-1)[None]
    expected = (decoded * head.kernel[...][None]).sum(-1) / lengths
    np.testing.assert_allclose(found["cosines"], expected, atol=1e-6)
    np.testing.assert_allclose(found["logits"], 20 * expected, atol=1e-5)
    assert found["scale"] == 20
    assert head.bias is None


def test_the_place_of_a_feature_matters():
    head = nnx.view(_head(), deterministic=True)
    features = jnp.asarray(golden.fill_input("features", (1, 2, 3, 8), -1, 2))
    key = jax.random.key(0)
    before, after = (_apply(*nnx.split(head), x, key) for x in (features, features[:, :, ::-1]))
    assert np.abs(before - after).min() > 1e-4


@pytest.mark.usefixtures("little_optimization")
def test_bfloat16_gives_float32_logits_near_those_of_float32():
    features = jnp.asarray(golden.fill_input("features", (2, 2, 3, 8), -1, 2))
    half, full = (
        nnx.view(_head(dtype=dtype), deterministic=True) for dtype in (jnp.bfloat16, None)
    )
    key = jax.random.key(0)
    found = _apply(*nnx.split(half), features.astype(jnp.bfloat16), key)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _apply(*nnx.split(full), features, key), atol=0.2)


def test_initial_values_are_those_of_the_reference():
    head = Query2Label(64, 20, embedding_size=48, feed_forward_size=96, rngs=nnx.Rngs(0))
    attention, feed_forward = head.encoder[0].self_attention, head.encoder[0].feed_forward
    bounds = [
        (head.projection.kernel, 1 / 64),
        # Xavier's; torch draws query, key and value as one matrix [144, 48].
        (attention.query.kernel, 6 / 192),
        (attention.out.kernel, 6 / 96),
        (feed_forward.expand.kernel, 6 / 144),
        (feed_forward.reduce.kernel, 6 / 144),
        (feed_forward.reduce.bias, 1 / 96),
        (head.kernel, 1 / 48),
    ]
    for values, square in bounds:
        assert 0.85 < np.abs(values[...]).max() / square**0.5 <= 1 + 1e-6
    np.testing.assert_allclose(head.queries[...].std(), 1, rtol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding_size": 6}, "multiple of 4 .*got 6"),
        ({"num_heads": 3}, "multiple of num_heads, got 8 for 3"),
        ({"decoder_layers": 0}, "at least 1 decoder layer"),
        ({"self_attention": (2,)}, r"from 0 to 0, got \(2,\)"),
    ],
)
def test_an_impossible_head_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        _head(**arguments)
