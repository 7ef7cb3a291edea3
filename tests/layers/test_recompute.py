"""Blocks whose cheap maps are computed again for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax import create_model
from mljax.backbones.efficientnet_v2 import efficientnet_v2_b0
from mljax.backbones.tresnet import Bottleneck
from mljax.config import loss
from mljax.layers.recompute import recomputing
from mljax.models.arrays import merge_model, split_model
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms


def _bottleneck():
    return Bottleneck(8, 8, stride=2, squeeze_excite=True, slope=1e-3, rngs=nnx.Rngs(0))


def _inverted():
    # Its depthwise convolution is no convolution of XLA on the CPU, and is kept all the same.
    network = efficientnet_v2_b0(layers=(0, 0, 0, 1, 0, 0), stem_width=8, rngs=nnx.Rngs(0))
    return network.stages[3][0]


# Gradients of the second are up to 250: sums of many terms, whose order XLA may change.
@pytest.mark.parametrize(
    ("make", "most", "atol"), [(_bottleneck, 0.65, 1e-5), (_inverted, 0.5, 5e-5)]
)
def test_gradients_and_statistics_are_equal_and_far_fewer_maps_are_kept(make, most, atol):
    block = make()
    graph, params, statistics = nnx.split(block, nnx.Param, ...)
    x = jax.random.normal(jax.random.key(0), (6, 16, 16, 8))

    def outputs(apply, params, x):
        module = nnx.merge(graph, params, statistics, copy=True)
        return apply(module, x), nnx.state(module, nnx.BatchStat)

    def run(apply):
        def pull_back(params, x):
            return jax.vjp(lambda *a: outputs(apply, *a), params, x, has_aux=True)

        kept = jax.tree.leaves(jax.eval_shape(lambda *a: pull_back(*a)[1], params, x))
        maps = sum(leaf.size for leaf in kept if leaf.ndim >= 4 and leaf.size > 6 * 8 * 8)

        @jax.jit
        def gradients(params, x):
            y, pull, new = pull_back(params, x)
            return y, pull(jnp.cos(y)), new

        return gradients(params, x), maps

    plain, maps = run(lambda module, x: module(x))
    again, fewer = run(recomputing)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol)
    assert fewer < most * maps, (fewer, maps)


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("tresnet_m", (1, 0, 2, 0)),
        ("resnet18", (1, 0, 2, 0)),
        ("efficientnet_v2_b0", (1, 0, 0, 2, 0, 0)),
    ],
)
def test_a_training_step_recomputes_each_block_and_nothing_else_does(backbone, layers):
    kwargs = {"layers": layers} | ({} if backbone.startswith("eff") else {"width": 8})
    model = create_model(backbone, num_classes=3, backbone_kwargs=kwargs, rngs=nnx.Rngs(0))
    gradients = make_gradients(model, make_terms((loss("asymmetric_loss"),), ()))
    graph, params, statistics = split_model(model)
    images, labels = jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 3))
    batch = {"images": images, "labels": labels, "valid": jnp.ones(2, bool)}
    variables = {"statistics": statistics, "trackers": {}}
    trained = jax.make_jaxpr(gradients)(params, variables, batch, jax.random.key(0))
    evaluated = jax.make_jaxpr(lambda p, s: merge_model(graph, p, s)(images))(params, statistics)
    assert str(trained).count("remat") == sum(layers)
    assert "remat" not in str(evaluated)
