"""MulCon's head against the published code: embeddings, gradients, losses of both stages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from converters.systems.mulcon import block_table, label_attention_table
from converters.table import export_tensors, import_tensors
from mljax import create_model
from mljax.heads.label_attention import AttentionBlock, LabelAttention
from mljax.losses.contrastive import label_contrastive_loss
from tests import golden

WHOLE = golden.names("mulcon_mab", "isab")
RAISE = ("stage1_batch1", "stage2_no_labels", "stage2_denominator_too_big")
TOTALS = [name for name in golden.names("mulcon_loss", "stage") if name not in RAISE]
ROWS = 8


@functools.cache
def _head(group, case):
    hyper = golden.cases(group)[case]["hyper"]
    features, size = (hyper.get(a, hyper.get(b)) for a, b in (("di", "dim_in"), ("do", "dim_out")))
    tensors = golden.state_dict(group, case)
    if group == "mulcon_mab":
        # The classifiers are no part of these cases.
        for label in range(hyper["K"]):
            tensors[f"netC.{label}.weight"] = np.zeros((1, size), np.float32)
            tensors[f"netC.{label}.bias"] = np.zeros(1, np.float32)
    head = nnx.eval_shape(
        lambda: LabelAttention(
            features,
            hyper["K"],
            embedding_size=size,
            num_heads=4,
            norms=hyper.get("ln", True),
            projection_size=hyper.get("proj") if "netP.2.bias" in tensors else None,
            rngs=nnx.Rngs(0),
        )
    )
    import_tensors(label_attention_table(head), tensors, nnx.Dict(head=head))
    return head


def _by_original_names(graph, gradients):
    head = nnx.merge(graph, gradients)
    return export_tensors(label_attention_table(head), nnx.Dict(head=head))


@functools.partial(jax.jit, static_argnums=0)
def _embed(graph, state, features, cotangent):
    def run(state, features):
        outputs = nnx.merge(graph, state)(features[:, None])
        return (outputs["embeddings"] * cotangent).sum(), outputs

    (_, outputs), gradients = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(state, features)
    return outputs, gradients


def _stacked(attention):
    """Returns the attention as there: the heads of all images one after the other."""
    return np.moveaxis(np.asarray(attention), 1, 0).reshape(-1, *attention.shape[2:])


@pytest.mark.parametrize(
    "case",
    [c if c == "isab_small" else pytest.param(c, marks=pytest.mark.slow) for c in WHOLE],
)
def test_embeddings_attention_and_gradients_equal_reference(case):
    # Inputs of +-40 and sums without norms amplify the rounding of float32.
    dtype, suffix, tolerance = "float64", "_f64", 1e-10
    if case == "isab_small":
        dtype, suffix, tolerance = "float32", "", 1e-5
    expected, inputs = golden.arrays("mulcon_mab", case), golden.cases("mulcon_mab")[case]["inputs"]
    graph, state = nnx.split(_head("mulcon_mab", case))
    with jax.enable_x64(dtype == "float64"):
        state = jax.tree.map(lambda x: x.astype(dtype), state)
        features, cotangent = (
            jnp.asarray(golden.fill_input(*inputs[name]["fill"]), dtype) for name in ("x", "cot")
        )
        outputs, gradients = _embed(graph, state, features, cotangent)
        named = _by_original_names(graph, gradients[0])
    found = {
        "out": outputs["embeddings"],
        "attn": _stacked(outputs["attention"].squeeze(3)),
        "grad_x": gradients[1],
    } | {f"grad_param:{name}": array for name, array in named.items()}
    for name, array in found.items():
        if "netC" in name:
            continue
        key, array, bound = name + suffix, np.asarray(array), tolerance
        if case == "isab_full":
            key, array = f"{key}_first64", array.ravel()[:64]
            if "param" in name:
                # Norms, of float32 alone: those of queries and keys are up to 2.4e-4 from ours in
                # float64, which gives the gradient of x to 1e-10.
                key, array, bound = f"gradnorm_param:{name[11:]}", np.linalg.norm(found[name]), 2e-4
        # Gradients sum over the batch and the places, those of norms up to the hundreds.
        scale = max(1.0, float(np.abs(expected[key]).max())) if "grad" in name else 1.0
        np.testing.assert_allclose(array, expected[key], atol=2 * bound * scale, err_msg=name)


@pytest.mark.parametrize("case", golden.names("mulcon_mab", "sab", "mab_label"))
def test_one_block_equals_reference(case):
    row, expected = golden.cases("mulcon_mab")[case], golden.arrays("mulcon_mab", case)
    inputs = {k: golden.fill_input(*v["fill"]) for k, v in row["inputs"].items()}
    queries, memory = (inputs.get(name, inputs.get("x")) for name in ("q", "k"))
    name = "netA.mab" if "q" in inputs else "netA.sab1.mab"
    block = nnx.eval_shape(
        lambda: AttentionBlock(
            queries.shape[-1],
            memory.shape[-1],
            queries.shape[-1],
            num_heads=4,
            norms=True,
            dtype=None,
            rngs=nnx.Rngs(0),
        )
    )
    table = block_table(block, name, "read")
    tensors = golden.state_dict("mulcon_mab", case)
    import_tensors(table, tensors, nnx.Dict(head=nnx.Dict(read=block)))
    out, attention = jax.jit(block)(jnp.asarray(queries), jnp.asarray(memory))
    np.testing.assert_allclose(out, expected["out"], atol=1e-5)
    if "attn" in expected:
        np.testing.assert_allclose(_stacked(attention), expected["attn"], atol=1e-6)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _losses(graph, state, features, labels, valid, denominator_size, weights):
    def run(state, features):
        outputs = nnx.merge(graph, state)(features)
        entries = optax.sigmoid_binary_cross_entropy(outputs["logits"], labels)
        terms = [jnp.where(valid[:, None], entries, 0).sum() / (valid.sum() * labels.shape[1])]
        if "projections" in outputs:
            contrastive = label_contrastive_loss(
                outputs["projections"],
                labels,
                outputs["logits"],
                valid,
                temperature=0.2,
                base_temperature=0.2,
                denominator_size=denominator_size,
            )
            terms.append(contrastive.sum())
        return sum(w * x for w, x in zip(weights, terms, strict=False)), (outputs, terms)

    return jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(state, features)


@pytest.mark.slow
@pytest.mark.parametrize("case", TOTALS)
def test_the_losses_of_both_stages_and_all_gradients_equal_reference(case):
    expected, row = golden.arrays("mulcon_loss", case), golden.cases("mulcon_loss")[case]
    hyper = row["hyper"]
    features = golden.fill_input(*row["inputs"]["map"]["fill"]).transpose(0, 2, 3, 1)
    count = len(features)
    # All cases in one program: what is not valid has no part in a head without batch norm.
    features, labels = (
        np.pad(x, ((0, ROWS - count), *[(0, 0)] * (x.ndim - 1)))
        for x in (features, expected["gt_label"])
    )
    graph, state = nnx.split(_head("mulcon_loss", case))
    if hyper["netC_weight_multiplier"] != 1:
        state["kernel"] = state["kernel"].replace(
            state["kernel"][...] * hyper["netC_weight_multiplier"]
        )
    (total, (outputs, terms)), gradients = _losses(
        graph,
        state,
        jnp.asarray(features),
        jnp.asarray(labels, jnp.float32),
        jnp.arange(ROWS) < count,
        hyper["denominator_size"],
        (hyper["coef_att"], hyper["coef_nce"]),
    )
    extreme = max(1.0, float(np.abs(expected["pred"]).max()))
    np.testing.assert_allclose(outputs["logits"][:count], expected["pred"], atol=1e-5 * extreme)
    np.testing.assert_allclose(total, expected["loss_total"], rtol=1e-5)
    if len(terms) > 1:
        np.testing.assert_allclose(terms[1], expected["loss_contrastive"], rtol=1e-5, atol=1e-6)
        flat = outputs["projections"][:count].reshape(-1, hyper["proj"])
        np.testing.assert_allclose(flat, expected["con_feat"], atol=1e-5)
    along_map = np.asarray(gradients[1]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(along_map[:count], expected["grad_map"], atol=1e-5 * extreme)
    for name, array in _by_original_names(graph, gradients[0]).items():
        np.testing.assert_allclose(
            array, expected[f"grad_param:{name}"], atol=1e-5 * extreme, err_msg=name
        )


def test_a_head_comes_back_as_the_networks_of_the_original():
    tensors = golden.state_dict("mulcon_loss", "stage2_basic")
    head = _head("mulcon_loss", "stage2_basic")
    back = export_tensors(label_attention_table(head), nnx.Dict(head=head))
    assert back.keys() == tensors.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


@pytest.mark.parametrize(
    ("backbone", "kwargs"),
    [
        ("tresnet_m", {"layers": (0, 0, 0, 0), "width": 8}),
        ("efficientnet_v2_s", {"layers": (0, 0, 0, 0, 0, 0), "stem_width": 8, "num_features": 16}),
    ],
)
def test_a_head_stands_on_any_backbone(backbone, kwargs):
    def outputs(size):
        model = create_model(
            backbone,
            "label_attention",
            num_classes=3,
            backbone_kwargs=kwargs,
            head_kwargs={"embedding_size": 8, "projection_size": 6},
            rngs=nnx.Rngs(0),
        )
        return model.head.kernel[...], model(jnp.zeros((2, *size, 3)))

    for size in ((64, 64), (96, 32)):
        kernel, found = jax.eval_shape(functools.partial(outputs, size))
        # The classifiers are one parameter.
        assert kernel.shape == (3, 8)
        assert found["logits"].shape == (2, 3)
        assert found["projections"].shape == (2, 3, 6)
        assert found["attention"].shape[:3] == (2, 4, 3)


def test_one_image_keeps_its_axis():
    head = _head("mulcon_loss", "stage2_basic")
    assert jax.eval_shape(head, jnp.ones((1, 2, 3, 16)))["logits"].shape == (1, 5)


def test_a_width_that_the_heads_do_not_divide_raises():
    with pytest.raises(ValueError, match="6 features are no multiple of 4 heads"):
        LabelAttention(8, 2, embedding_size=6, rngs=nnx.Rngs(0))
