"""The device mesh, and where arrays live on it.

One axis, `data`: batches are split over it. Parameters are replicated, or split over the same
axis, each along its longest axis that divides (fully sharded data parallelism).
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of all devices of all processes, or of `devices`."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_sharding(mesh: Mesh, state: PyTree, *, fsdp: bool) -> PyTree:
    """Returns a sharding for every array of `state`; shapes suffice."""

    def sharding(array: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [i for i, size in enumerate(array.shape) if size and size % mesh.size == 0]
        if not fsdp or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda i: array.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "data"))

    return jax.tree.map(sharding, state)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Returns this process's rows of a batch as arrays of the global batch."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns this process's rows of an array that is split over the first axis."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
