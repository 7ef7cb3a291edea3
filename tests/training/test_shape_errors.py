"""Errors of shapes name the loss, or the layer, and the shapes that it was given."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mljax.config import loss, part
from mljax.heads.linear import Linear
from mljax.models.arrays import split_model
from mljax.models.classifier import Classifier, ModelSpec
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms, total_loss
from tests import networks
from tests.networks import PixelBackbone


def wrong_loss(logits, labels, *, rows=3):
    return logits.reshape(rows, -1) - labels


def test_a_failing_loss_is_named_with_its_shapes():
    terms = make_terms((loss("asymmetric_loss"), loss(wrong_loss)), ())
    batch = {"labels": jnp.ones((4, 3)), "valid": jnp.ones(4, bool)}
    with pytest.raises(ValueError, match="loss wrong_loss") as error:
        total_loss(terms, {"logits": jnp.ones((4, 3))}, batch)
    assert "logits (4, 3), labels (4, 3)" in str(error.value)


class _Inner(nnx.Module):
    def __call__(self, pixels):
        return pixels @ jnp.ones((5, 4))


class _Backbone(nnx.Module):
    num_features = 4

    def __init__(self):
        self.stages = nnx.List([_Inner()])

    def __call__(self, images):
        return self.stages[0](images)


def _classifier(backbone):
    spec = ModelSpec(backbone=part("mine"), head=part("linear"), num_classes=3)
    return Classifier(backbone, Linear(4, 3, rngs=nnx.Rngs(0)), spec)


def test_a_failing_layer_is_named_with_the_shape_of_the_input():
    with pytest.raises(ValueError, match=r"backbone mine, layer backbone.stages.0,") as error:
        _classifier(_Backbone())(jnp.ones((2, 8, 8, 3)))
    assert "given (2, 8, 8, 3)" in str(error.value)


class _Wide(PixelBackbone):
    num_features = 5


def test_a_failing_head_is_named():
    with pytest.raises(ValueError, match=r"head linear, layer head.* given \(2, 8, 8, 5\)"):
        _classifier(_Wide())(jnp.ones((2, 8, 8, 3)))


def test_a_failing_layer_is_named_in_a_step_as_well():
    model = networks.pixel_model()
    terms = make_terms((loss("asymmetric_loss"),), ())
    gradients = make_gradients(model, terms)
    _, params, statistics = split_model(model)
    params["backbone.kernel"] = jnp.ones((5, 4))
    batch = {"images": jnp.ones((2, 8, 8, 3)), "labels": jnp.ones((2, 3))}
    batch["valid"] = jnp.ones(2, bool)
    with pytest.raises(ValueError, match=r"backbone pixel, .* given \(2, 8, 8, 3\)"):
        gradients(params, {"statistics": statistics, "trackers": {}}, batch, jax.random.key(0))
