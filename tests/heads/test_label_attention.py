"""MulCon's head against the published code: embeddings, gradients, losses of both stages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from converters.systems.mulcon import label_attention_table
from converters.table import export_tensors, import_tensors
from mljax.heads.label_attention import LabelAttention
from mljax.losses.contrastive import label_contrastive_loss
from tests import golden


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
            projection_size=hyper.get("proj"),
            rngs=nnx.Rngs(0),
        )
    )
    import_tensors(label_attention_table(head), tensors, nnx.Dict(head=head))
    return head


@pytest.mark.parametrize("case", golden.names("mulcon_mab"))
def test_embeddings_and_their_gradient_equal_reference(case):
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

        @jax.jit
        def run(features):
            embeddings = nnx.merge(graph, state)(features[:, None])["embeddings"]
            return (embeddings * cotangent).sum(), embeddings

        (_, embeddings), gradient = jax.value_and_grad(run, has_aux=True)(features)
    np.testing.assert_allclose(embeddings, expected["out" + suffix], atol=tolerance)
    np.testing.assert_allclose(gradient, expected["grad_x" + suffix], atol=2 * tolerance)


def test_the_losses_of_stage_two_equal_reference():
    case = "stage2_denominator"
    expected = golden.arrays("mulcon_loss", case)
    row = golden.cases("mulcon_loss")[case]
    features = golden.fill_input(*row["inputs"]["map"]["fill"]).transpose(0, 2, 3, 1)
    labels = jnp.asarray(expected["gt_label"])
    graph, state = nnx.split(_head("mulcon_loss", case))

    @jax.jit
    def run(features):
        outputs = nnx.merge(graph, state)(features)
        contrastive = label_contrastive_loss(
            outputs["projections"],
            labels,
            outputs["logits"],
            temperature=0.2,
            base_temperature=0.2,
            denominator_size=row["hyper"]["denominator_size"],
        ).sum()
        classified = optax.sigmoid_binary_cross_entropy(outputs["logits"], labels).mean()
        return classified + 0.5 * contrastive, (outputs, contrastive)

    run = jax.value_and_grad(run, has_aux=True)
    (total, (outputs, contrastive)), gradient = run(jnp.asarray(features))
    np.testing.assert_allclose(outputs["logits"], expected["pred"], atol=1e-5)
    flat = outputs["projections"].reshape(-1, outputs["projections"].shape[-1])
    np.testing.assert_allclose(flat, expected["con_feat"], atol=1e-5)
    np.testing.assert_allclose(contrastive, expected["loss_contrastive"], rtol=1e-5)
    np.testing.assert_allclose(total, expected["loss_total"], rtol=1e-5)
    along_map = np.asarray(gradient).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(along_map, expected["grad_map"], atol=1e-5)


def test_a_head_comes_back_as_the_networks_of_the_original():
    tensors = golden.state_dict("mulcon_loss", "stage2_basic")
    head = _head("mulcon_loss", "stage2_basic")
    back = export_tensors(label_attention_table(head), nnx.Dict(head=head))
    assert back.keys() == tensors.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_a_width_that_the_heads_do_not_divide_raises():
    with pytest.raises(ValueError, match="6 features are no multiple of 4 heads"):
        LabelAttention(8, 2, embedding_size=6, rngs=nnx.Rngs(0))
