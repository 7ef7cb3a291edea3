"""Small states of a run that no training made, and their checkpoints."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mljax.config import part
from mljax.models.arrays import split_model
from mljax.training.progress import Best, Progress
from mljax.training.state import TrainState
from tests import networks

MODEL = networks.model(backbone=part("tresnet_m", layers=(0, 0, 0, 0), width=8))
PROGRESS = Progress(
    best=Best(figure=1 / 3, step=4, weights="ema"),
    bad_images=("a.jpg", "b é.jpg"),
    evaluated=4,
    states={"stop": {"best": 0.1, "since": 2}},
)


def make_state(step=0, *, ema=True):
    """Returns a state whose arrays differ from each other and from those of other steps."""
    _, params, statistics = split_model(MODEL)
    fields = {
        "params": params,
        "statistics": statistics,
        "ema_params": params if ema else {},
        "ema_statistics": statistics if ema else {},
        "opt_state": optax.scale_by_adam().init(params),
        "skipped": jnp.asarray(2, jnp.int32),
        "trackers": {"class_prior": {"mean": jnp.zeros(10)}},
    }
    rng = np.random.default_rng(step)
    fields = jax.tree.map(lambda a: jnp.asarray(rng.normal(3, 1, a.shape), a.dtype), fields)
    return TrainState(step=jnp.asarray(step, jnp.int32), **fields)


def copies(state):
    return [np.array(a, copy=True) for a in jax.tree.leaves(state)]


def assert_equal(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(make_state(ema=bool(state.ema_params)))
    leaves = copies(state)
    assert [a.dtype for a in leaves] == [a.dtype for a in expected]
    jax.tree.map(np.testing.assert_array_equal, leaves, expected)


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(
            make_state(step), dataclasses.replace(PROGRESS, bad_images=(f"{step}.jpg",))
        )
    checkpoints.wait()
