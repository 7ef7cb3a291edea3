"""Networks small enough for the tests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mljax.config import Preprocessing, part
from mljax.data.readers.digits import CLASS_NAMES
from mljax.heads.linear import Linear
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, ModelSpec, abstract_model

BACKBONE = part("tresnet_m", layers=(1, 1, 1, 1), width=8)
HEAD = part("linear")
PREPROCESSING = Preprocessing(image_size=32)


def model(
    *,
    backbone=BACKBONE,
    head=HEAD,
    num_classes=10,
    class_names=CLASS_NAMES,
    preprocessing=PREPROCESSING,
):
    """Returns a TResNet of ten classes whose scores differ between images and classes.

    Its arrays are filled here, since initializing them would be compiled first.
    """
    spec = ModelSpec(backbone=backbone, head=head, num_classes=num_classes)
    graph, params, statistics = split_model(abstract_model(spec))
    rng = np.random.default_rng(0)

    def fill(path, shape):
        if len(shape) > 1:
            gain = 10 if path.startswith("head") else 1
            return rng.normal(0, gain * np.sqrt(2 / np.prod(shape[:-1])), shape)
        return np.full(shape, path.endswith(("scale", "var")))

    filled = [
        {path: jnp.asarray(fill(path, x.shape), jnp.float32) for path, x in arrays.items()}
        for arrays in (params, statistics)
    ]
    network = merge_model(graph, *filled)
    network.class_names = class_names
    network.preprocessing = preprocessing
    return network


def trained(network):
    """Returns a network with gains, biases and statistics as a training leaves them."""
    graph, *arrays = split_model(network)
    rng = np.random.default_rng(1)
    draw = {
        "scale": lambda shape: rng.normal(0, 1, shape),
        "bias": lambda shape: rng.normal(0, 0.3, shape),
        "mean": lambda shape: rng.normal(0, 0.3, shape),
        "var": lambda shape: rng.uniform(0.5, 2, shape),
    }

    def fill(path, x):
        name = path.rsplit(".")[-1]
        return jnp.asarray(draw[name](x.shape), x.dtype) if name in draw else x

    return merge_model(graph, *({path: fill(path, x) for path, x in a.items()} for a in arrays))


class PixelBackbone(nnx.Module):
    """A linear layer on every pixel, without batch norm; it counts the batches of training."""

    num_features = 4

    def __init__(self):
        self.kernel = nnx.Param(jax.random.normal(jax.random.key(0), (3, self.num_features)))
        self.batches = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, images):
        self.batches[...] = self.batches[...] + 1
        return jax.nn.relu(images @ self.kernel[...])


def pixel_model(num_classes=3, backbone=None):
    """Returns a network of two layers, whose training is compiled in no time."""
    backbone = PixelBackbone() if backbone is None else backbone
    head = Linear(backbone.num_features, num_classes, rngs=nnx.Rngs(1))
    spec = ModelSpec(backbone=part("pixel"), head=part("linear"), num_classes=num_classes)
    return Classifier(backbone, head, spec)


def in_float64(state, transform):
    """Returns a state with all of its arrays in float64, before the first step."""
    wide = {
        name: {path: array.astype(float) for path, array in getattr(state, name).items()}
        for name in ("params", "statistics", "ema_params", "ema_statistics")
    }
    return dataclasses.replace(state, opt_state=transform.init(wide["params"]), **wide)
