"""Networks applied to images, on all devices."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mljax.devices.mesh import batch_sharding, local_rows, make_mesh, replicated
from mljax.models.arrays import Arrays, merge_model, split_model
from mljax.models.classifier import Classifier

Outputs = dict[str, np.ndarray]


def make_forward(
    model: Classifier, mesh: Mesh, reads: Sequence[str] = ("logits",)
) -> Callable[[Arrays, Arrays, Float[np.ndarray, "b h w 3"]], Outputs]:
    """Returns `forward(params, statistics, images)`: outputs of the head for this process's images.

    Args:
      model: in eval mode; gives the structure only.
      mesh: the images are split over its devices.
      reads: names of the outputs; the others are not computed.

    Raises:
      ValueError: when called, for an output that the head does not give.
    """
    graph = nnx.graphdef(model)
    sharding = batch_sharding(mesh)

    @functools.partial(jax.jit, out_shardings=sharding)
    def outputs(params: Arrays, statistics: Arrays, images: Float[Array, "b h w 3"]) -> Any:  # noqa: ANN401
        found = merge_model(graph, params, statistics)(images)
        missing = [name for name in reads if name not in found]
        if missing:
            raise ValueError(
                f"the head {model.spec.head.name} gives {', '.join(sorted(found))}, but not "
                f"{', '.join(missing)}, which is to be read: choose another head or evaluator"
            )
        return {name: found[name] for name in reads}

    def forward(params: Arrays, statistics: Arrays, images: np.ndarray) -> Outputs:
        rows = jax.make_array_from_process_local_data(sharding, images)
        found = outputs(params, statistics, rows)
        return {name: local_rows(array) for name, array in found.items()}

    return forward


def make_apply(
    model: Classifier, reads: Sequence[str] = ("logits",)
) -> Callable[[Float[np.ndarray, "b h w 3"]], Outputs]:
    """Returns `apply(images)`: outputs of the head, computed on all local devices.

    The images are split over the devices, so their number must be a multiple of the devices'.

    Args:
      model: in eval mode.
      reads: names of the outputs.
    """
    mesh = make_mesh(jax.local_devices())
    _, params, statistics = split_model(model)
    params, statistics = jax.device_put((params, statistics), replicated(mesh))
    forward = make_forward(model, mesh, reads)
    return lambda images: forward(params, statistics, images)


def whole_batch(rows: int) -> int:
    """Returns the least batch size that has `rows` rows and is a multiple of the devices."""
    devices = jax.local_device_count()
    return -(-rows // devices) * devices
