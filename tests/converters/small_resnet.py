"""A small ResNet with a linear or an ML-Decoder head."""

from functools import cache, partial

import jax
import numpy as np
from flax import nnx

from mljax import create_model

ML_DECODER = {"embedding_size": 16, "feed_forward_size": 8, "num_groups": 2}


@partial(jax.jit, static_argnums=0)
def _apply(graph, state, images):
    return nnx.merge(graph, state)(images)["logits"]


def logits(model, images):
    return np.asarray(_apply(*nnx.split(model), images))


@cache
def small(head="linear", **kwargs):
    """Returns a small ResNet with noise for the statistics, which start alike in all layers."""
    model = create_model(
        "resnet18",
        head,
        num_classes=3,
        head_kwargs=ML_DECODER if head == "ml_decoder" else {},
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 4, **kwargs},
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(0)
    for _, variable in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        variable.set_value(jax.numpy.asarray(rng.uniform(0.5, 1.5, variable.shape), "float32"))
    nnx.update(model, nnx.state(model))
    return model
