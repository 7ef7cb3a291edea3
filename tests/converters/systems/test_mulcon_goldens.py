"""MulCon's whole network against the published code: logits, attention, and one step of stage 2."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from converters import from_torch
from mljax.losses.contrastive import label_contrastive_loss
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


def test_the_losses_of_stage_two_and_their_gradients_equal_reference():
    model, images, expected = _read("stage2_train_k20_64")
    labels = jnp.asarray(expected["gt_label"])
    model = nnx.view(
        model, deterministic=False, use_running_average=False, raise_if_not_found=False
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(params, rest):
        network = nnx.merge(graph, params, rest)
        outputs = network(images)
        contrastive = label_contrastive_loss(
            outputs["projections"], labels, temperature=0.2, base_temperature=0.2
        ).sum()
        classified = optax.sigmoid_binary_cross_entropy(outputs["logits"], labels).mean()
        total = classified + 0.5 * contrastive
        return total, (outputs["logits"], contrastive, nnx.state(network, nnx.BatchStat))

    (total, (logits, contrastive, after)), gradients = jax.value_and_grad(run, has_aux=True)(
        params, rest
    )
    # Batch norm over 4 images in train mode: the reference itself is 1e-5 from float64.
    np.testing.assert_allclose(logits, expected["pred"], atol=1e-4)
    np.testing.assert_allclose(total, expected["loss_total"], rtol=1e-4)
    np.testing.assert_allclose(contrastive, expected["loss_contrastive"], rtol=1e-4)
    mean = after["backbone"]["stem"]["norm"]["mean"][...]
    np.testing.assert_allclose(mean, expected["netE.1.running_mean_after"], atol=1e-5)
    head = gradients["head"]
    for name, array in (
        ("netA.I", head["queries"][...]),
        ("netP.2.weight", head["projection"]["output"]["kernel"][...].T),
    ):
        array = np.asarray(array)
        wanted = expected[f"grad:{name}_first64"]
        np.testing.assert_allclose(
            array.ravel()[:64], wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=name
        )
    for name in ("netE", "netA", "netP"):
        parts = {
            "netE": gradients["backbone"],
            "netP": head["projection"],
            "netA": [head[k] for k in ("queries", "places1", "places2", "read", "labels")],
        }[name]
        norm = optax.global_norm(parts)
        np.testing.assert_allclose(norm, expected[f"gradnorm_{name}"], rtol=1e-4, err_msg=name)
    bias = head["bias"][...][:1]
    np.testing.assert_allclose(bias, expected["grad:netC.0.bias"], atol=1e-6)
    # The first step of SGD with the original's decay.
    before = model.head.bias[...][:1]
    np.testing.assert_allclose(
        before - 0.01 * (bias + 1e-4 * before), expected["after_step:netC.0.bias"], atol=1e-6
    )
