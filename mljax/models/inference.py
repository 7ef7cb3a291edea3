"""Networks applied to images, on all devices."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mljax.devices.compiler import compiler_options
from mljax.devices.mesh import batch_sharding, local_rows, make_mesh, replicated
from mljax.models.arrays import Arrays, merge_model, split_model
from mljax.models.classifier import Classifier
from mljax.models.folding import fold

Outputs = dict[str, np.ndarray]
Apply = Callable[[Float[np.ndarray, "b h w 3"]], Outputs]
# Gets the network and the names of the outputs.
MakeApply = Callable[..., Apply]


def outputs_read(evaluators: Iterable[Any]) -> tuple[str, ...]:
    """Returns the names of the outputs that evaluators read, each once."""
    return tuple(dict.fromkeys(name for each in evaluators for name in each.reads))


def make_forward(
    model: Classifier, mesh: Mesh, reads: Sequence[str] = ("logits",)
) -> Callable[[Arrays, Arrays, Float[np.ndarray, "b h w 3"]], Outputs]:
    """Returns `forward(params, statistics, images)`: outputs of the head for this process's images.

    It is compiled once for each shape of the images, for all networks of one structure together.

    Args:
      model: in eval mode; gives the structure only.
      mesh: the images are split over its devices.
      reads: names of the outputs; the others are not computed.

    Raises:
      ValueError: when called, for an output that the head does not give.
    """
    return _forward(nnx.graphdef(model), mesh, tuple(reads), model.spec.head.name)


def _forward(
    graph: nnx.GraphDef[Any], mesh: Mesh, reads: tuple[str, ...], head: str
) -> Callable[[Arrays, Arrays, Float[np.ndarray, "b h w 3"]], Outputs]:
    try:
        return _make_forward(graph, mesh, reads, head)
    except TypeError:
        # A network of a plug-in may hold what has no hash, such as a list.
        return _make_forward.__wrapped__(graph, mesh, reads, head)


@functools.lru_cache(maxsize=16)
def _make_forward(
    graph: nnx.GraphDef[Any], mesh: Mesh, reads: tuple[str, ...], head: str
) -> Callable[[Arrays, Arrays, Float[np.ndarray, "b h w 3"]], Outputs]:
    sharding = batch_sharding(mesh)

    @functools.partial(jax.jit, out_shardings=sharding, compiler_options=compiler_options(mesh))
    def outputs(params: Arrays, statistics: Arrays, images: Float[Array, "b h w 3"]) -> Any:  # noqa: ANN401
        found = merge_model(graph, params, statistics)(images)
        missing = [name for name in reads if name not in found]
        if missing:
            raise ValueError(
                f"the head {head} gives {', '.join(sorted(found))}, but not "
                f"{', '.join(missing)}, which is to be read: choose another head or evaluator"
            )
        return {name: found[name] for name in reads}

    def forward(params: Arrays, statistics: Arrays, images: np.ndarray) -> Outputs:
        rows = jax.make_array_from_process_local_data(sharding, images)
        found = outputs(params, statistics, rows)
        return {name: local_rows(array) for name, array in found.items()}

    return forward


def make_apply(model: Classifier, reads: Sequence[str] = ("logits",)) -> Apply:
    """Returns `apply(images)`: outputs of the head, computed on all local devices.

    What no image changes is computed once; see `mljax.models.folding`.

    The images are split over the devices, so their number must be a multiple of the devices'.

    Args:
      model: in eval mode.
      reads: names of the outputs.
    """
    mesh, model = make_mesh(jax.local_devices()), fold(model)
    graph, params, statistics = split_model(model)
    params, statistics = jax.device_put((params, statistics), replicated(mesh))
    forward = _forward(graph, mesh, tuple(reads), model.spec.head.name)
    return lambda images: forward(params, statistics, images)


def whole_batch(rows: int) -> int:
    """Returns the least batch size that has `rows` rows and is a multiple of the devices."""
    devices = jax.local_device_count()
    return -(-rows // devices) * devices
