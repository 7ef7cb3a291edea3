"""Blocks whose cheap maps are computed again for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mljax.backbones.tresnet import Bottleneck
from mljax.layers.recompute import recomputing


def test_gradients_and_statistics_are_equal_and_far_fewer_maps_are_kept():
    block = Bottleneck(8, 8, stride=2, squeeze_excite=True, slope=1e-3, rngs=nnx.Rngs(0))
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
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert fewer < 0.65 * maps, (fewer, maps)
