"""MulCon's whole network against the published code: logits, embeddings, attention, losses.

There is no test of gradients through the whole network: a step of stage 2 in train mode takes 61 s
of CPU time in float64. Done once, on four images of 64 pixels, it differed from the original there
by 4e-14 in the logits, 2e-15 in the contrastive loss, 1e-15 in the running statistics of the first
norm and 1e-16 in the gradient of the projection (of 9e-3). What follows cross-entropy differed by
1e-8 of its size: the original's factor of 1 / 20 for that loss is a float32, 1.5e-8 too large even
there. That is 2e-11 of 1.7e-3 for the label queries, 2e-9 of 0.18 for the first convolution, and
1e-7 of 11 and 14 for the norms of all. In float32 (36 s) the gradient of the label queries is off
by 6e-9 when XLA compiles with little optimization and by 1.2e-6 when with all: rounding, too large
for a tolerance. Smaller networks have their gradients and steps compared in
`tests/heads/test_label_attention.py` and `tests/training/test_mulcon_train.py`.
"""

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
    return nnx.merge(graph, state, copy=True)(images)


def test_outputs_of_the_whole_network_equal_reference():
    model, images, expected = _read("eval_k20_64")
    outputs = _outputs(*nnx.split(model), images)
    np.testing.assert_allclose(outputs["logits"], expected["pred"], atol=1e-4)
    found = np.asarray(outputs["embeddings"]).ravel()[:64]
    np.testing.assert_allclose(found, expected["label_feat_first64"], atol=1e-4)
    # There the heads of all images are one after the other.
    attention = np.moveaxis(np.asarray(outputs["attention"]), 1, 0)
    np.testing.assert_allclose(attention.ravel()[:64], expected["attn_first64"], atol=1e-4)


@pytest.mark.parametrize("case", ["stage1_train_k20_64", "stage2_eval_k20_64"])
def test_logits_and_losses_of_the_stages_equal_reference(case):
    model, images, expected = _read(case)
    labels, training = jnp.asarray(expected["gt_label"]), "train" in case
    model = nnx.view(model, use_running_average=not training, raise_if_not_found=False)
    outputs = _outputs(*nnx.split(model), images)
    np.testing.assert_allclose(outputs["logits"], expected["pred"], atol=1e-4)
    entropies = optax.sigmoid_binary_cross_entropy(outputs["logits"], labels)
    total = entropies.mean()
    # Stage 1 reports the sum of what it averages.
    reported = entropies.sum() if training else total
    np.testing.assert_allclose(reported, expected["loss_attention"], rtol=1e-4)
    if "loss_contrastive" in expected:
        projections = outputs["projections"]
        contrastive = label_contrastive_loss(
            projections, labels, temperature=0.2, base_temperature=0.2
        ).sum()
        np.testing.assert_allclose(contrastive, expected["loss_contrastive"], rtol=1e-4)
        total += 0.5 * contrastive
    np.testing.assert_allclose(total, expected["loss_total"], rtol=1e-4)
