"""A training step made from shapes alone, for devices that need not be there."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mljax.config import loss, part
from mljax.devices.mesh import state_sharding
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import ModelSpec, abstract_model
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import group_names, make_optimizer
from mljax.training.packing import Packing
from mljax.training.state import make_state
from mljax.training.step import jit_step, make_train_step


def lower_step(
    mesh: Mesh,
    network: str,
    images: int,
    side: int,
    *,
    dtype: str,
    batch_norm_groups: int = 1,
    channel_multiple: int = 1,
    packed: bool = True,
) -> Any:
    """Returns the lowered step of a network of 80 classes, with Adam and a moving average.

    Args:
      mesh: the devices; those of `jax.experimental.topologies` suffice.
      network: name of the backbone.
      images: in the batch of all devices.
      side: of an image, in pixels.
      dtype: of the network's computation.
      batch_norm_groups: see `TrainConfig`.
      channel_multiple: see `TrainConfig`.
      packed: the state in flat buffers.
    """
    spec = ModelSpec(backbone=part(network), head=part("linear"), num_classes=80, dtype=dtype)
    model, optimizer = abstract_model(spec), make_optimizer(part("torch_adam"))
    gradients = make_gradients(
        model,
        make_terms((loss("asymmetric_loss"),), ()),
        batch_norm_groups=batch_norm_groups,
        channel_multiple=channel_multiple,
    )
    graph, *arrays = split_model(model)
    rates = {"learning_rate": 1e-3}
    state = jax.eval_shape(
        lambda *a: make_state(merge_model(graph, *a), optimizer, rates, ema_decay=0.997), *arrays
    )
    if packed:
        packing = Packing(state, group_names(state.params, ()))
        gradients, state = packing.gradients(gradients), jax.eval_shape(packing.pack, state)
    batch = {
        "images": jax.ShapeDtypeStruct((images, side, side, 3), jnp.float32),
        "labels": jax.ShapeDtypeStruct((images, 80), jnp.float32),
        "valid": jax.ShapeDtypeStruct((images,), bool),
    }
    step = make_train_step(gradients, optimizer, ema_decay=0.997)
    compiled = jit_step(step, mesh, state_sharding(mesh, state, fsdp=False))
    return compiled.lower(state, batch, jax.eval_shape(lambda: jax.random.key(0)), rates)
