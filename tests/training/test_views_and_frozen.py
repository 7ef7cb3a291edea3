"""Views become rows, and what is frozen stays as it is in evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mljax import create_model
from mljax.config import loss
from mljax.losses.contrastive import supervised_contrastive_loss
from mljax.models.arrays import split_model
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms

IMAGES = np.random.default_rng(0).normal(size=(4, 2, 8, 8, 3)).astype(np.float32)
BATCH = {
    "images": IMAGES,
    "labels": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]],
    "valid": np.array([True, True, True, False]),
}


@functools.cache
def _model():
    model = create_model(
        "resnet18",
        "projection",
        num_classes=3,
        head_kwargs={"size": 5},
        backbone_kwargs={"layers": (1, 0, 0, 0), "width": 4, "cifar_stem": True},
        rngs=nnx.Rngs(0),
    )
    model.backbone.stem.norm.mean[...] = jnp.linspace(-1, 1, 4)
    return model


@functools.cache
def _gradients(frozen):
    """Returns the loss, the new statistics and the gradients of SimCLR's loss."""
    terms = make_terms((loss("supervised_contrastive_loss", labels=None, reduction="mean"),), ())
    gradients = make_gradients(_model(), terms, frozen=frozen)
    _, params, statistics = split_model(_model())
    variables = {"statistics": statistics, "trackers": {}}
    program = jax.jit(gradients)
    (value, (after, _)), grads = program(params, variables, BATCH, jax.random.key(0))
    return value, after["statistics"], grads


def test_a_frozen_backbone_is_in_eval_mode_and_has_no_gradient():
    value, after, grads = _gradients(("backbone",))
    projections = _model()(jnp.asarray(IMAGES.reshape(8, 8, 8, 3)))["projections"]
    valid = jnp.asarray(BATCH["valid"].repeat(2))
    expected = supervised_contrastive_loss(projections, None, valid, views=2).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    _, _, statistics = split_model(_model())
    for path, array in statistics.items():
        np.testing.assert_array_equal(after[path], array)
    for path, gradient in grads.items():
        assert bool((gradient == 0).all()) == path.startswith("backbone."), path


def test_a_path_freezes_only_what_is_below_it():
    _, after, grads = _gradients(("backbone.stem",))
    _, _, statistics = split_model(_model())
    for path, array in statistics.items():
        assert np.array_equal(after[path], array) == path.startswith("backbone.stem."), path
    assert not grads["backbone.stem.conv.kernel"].any()
    assert grads["backbone.stages.0.0.conv1.conv.kernel"].any()
