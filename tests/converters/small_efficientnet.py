"""A small EfficientNetV2 with a linear head."""

from functools import cache

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mljax.config import part
from mljax.models.classifier import ModelSpec, abstract_model

SMALL = {
    "layers": (2, 2, 1, 1, 2, 1),
    "widths": (8, 8, 12, 16, 16, 24),
    "stem_width": 8,
    "num_features": 32,
}


@cache
def small(head="linear", num_classes=3, **kwargs):
    """Returns the network; its arrays are filled here, since initializers would be compiled."""
    backbone = part("efficientnet_v2_s", **SMALL, **kwargs)
    spec = ModelSpec(backbone=backbone, head=part(head), num_classes=num_classes)
    model = abstract_model(spec)
    rng = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        name = path[-1]
        if name == "kernel":
            fan_in = np.prod(variable.shape[:-1])
            array = rng.normal(0, np.sqrt(2 / fan_in), variable.shape)
        elif name in ("scale", "var"):
            array = rng.uniform(0.5, 1.5, variable.shape)
        else:
            array = rng.normal(0, 0.1, variable.shape)
        variable.set_value(jnp.asarray(array, "float32"))
    return model
