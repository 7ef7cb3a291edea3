"""Folded networks: equal outputs, without batch norm, graphs and projections of words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax import load_model
from mljax.backbones.resnet import Unit
from mljax.checkpoints.checkpoint import save_model
from mljax.config import part
from mljax.layers.conv import ConvNorm
from mljax.models.arrays import split_model
from mljax.models.folding import fold
from tests import networks

RESNET = part("resnet18", layers=(1, 1, 1, 1), width=8)
BACKBONES = {
    "tresnet": networks.BACKBONE,
    "resnet": RESNET,
    "efficientnet": part(
        "efficientnet_v2_s",
        layers=(1,) * 6,
        widths=(8,) * 6,
        stem_width=8,
        num_features=16,
    ),
}
WORDS = part("ml_decoder", word_vector_size=5, embedding_size=16, feed_forward_size=8)


def _model(backbone=networks.BACKBONE, head=networks.HEAD):
    return networks.trained(networks.model(backbone=backbone, head=head))


@jax.jit
def _outputs(models, images):
    return [model(images) for model in models]


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_a_folded_network_is_equal_and_has_no_batch_norm(backbone):
    model = _model(backbone)
    folded = fold(model)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    expected, found = _outputs([model, folded], images)
    assert np.abs(expected["logits"]).max() > 1
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-5, atol=1e-5)
    _, params, statistics = split_model(folded)
    assert not {path for path in {**params, **statistics} if "norm" in path}
    assert folded.class_names == model.class_names
    # The network itself is as it was.
    assert any("norm" in path for path in split_model(model)[1])


def test_a_gain_below_zero_and_the_slope_of_an_activated_norm_are_kept():
    images = jnp.array([[[[-1.0]], [[2.0]]]])
    unit = ConvNorm(1, 1, 1, slope=0.5, rngs=nnx.Rngs(0))
    unit.conv.kernel[...] = jnp.ones((1, 1, 1, 1))
    unit.norm.scale[...] = jnp.full((1,), -3.0)
    unit.norm.use_running_average = True
    np.testing.assert_allclose(unit.folded()(images), unit(images), atol=1e-6)
    np.testing.assert_allclose(unit(images).ravel(), [-1.5, 6.0], rtol=1e-4)


def test_a_frozen_norm_is_folded_too():
    unit = Unit(3, 4, 3, frozen_norm=True, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for name in ("scale", "bias", "mean", "var"):
        getattr(unit.norm, name)[...] = jnp.asarray(rng.uniform(0.5, 2, 4), jnp.float32)
    images = jnp.asarray(rng.normal(size=(1, 4, 4, 3)), jnp.float32)
    np.testing.assert_allclose(unit.folded()(images), unit(images), atol=1e-5)


def test_queries_of_word_vectors_are_computed_once():
    model = _model(head=WORDS)
    model.head.word_vectors[...] = jnp.asarray(np.random.default_rng(0).normal(size=(10, 5)))
    features = jnp.ones((2, 3, 3, model.backbone.num_features))
    heads = [model.head, model.head.folded()]
    expected, found = _outputs(heads, features)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)
    assert heads[0].queries is None and heads[1].queries.shape == (10, 16)


def test_a_checkpoint_is_folded_as_it_is_loaded(tmp_path):
    save_model(tmp_path / "model", _model())
    folded = load_model(tmp_path / "model", fold=True)
    assert folded.is_folded and fold(folded) is folded
    assert not any("norm" in path for path in split_model(folded)[1])
    with pytest.raises(ValueError, match="a folded network has lost its parameters"):
        save_model(tmp_path / "folded", folded)
