"""Networks applied to images, on all devices."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from mljax.config.schema import MatmulPrecision, Preprocessing
from mljax.devices.compiler import at_precision, compiler_options
from mljax.devices.mesh import batch_sharding, local_rows, make_mesh, replicated
from mljax.models.arrays import Arrays, merge_model, split_model
from mljax.models.classifier import Classifier
from mljax.models.folding import fold
from mljax.models.pixels import normalize_pixels

# Outputs of the head by name, of the whole batch; JAX may still be computing them.
Outputs = dict[str, jax.Array]
Forward = Callable[[Arrays, Arrays, Shaped[np.ndarray, "b h w 3"]], Outputs]
Apply = Callable[[Shaped[np.ndarray, "b h w 3"]], Mapping[str, jax.Array | np.ndarray]]
# Gets what `make_apply` does.
MakeApply = Callable[..., Apply]


def outputs_read(evaluators: Iterable[Any]) -> tuple[str, ...]:
    """Returns the names of the outputs that evaluators read, each once."""
    return tuple(dict.fromkeys(name for each in evaluators for name in each.reads))


def make_forward(
    model: Classifier,
    mesh: Mesh,
    reads: Sequence[str] = ("logits",),
    *,
    preprocessing: Preprocessing | None = None,
    matmul_precision: MatmulPrecision = "default",
    deterministic: bool = False,
) -> Forward:
    """Returns `forward(params, statistics, images)`: outputs of the head for each process's images.

    It returns before they are computed; `fetch` waits for them. It is compiled once for each shape
    of the images, for all networks of one structure together.

    Args:
      model: in eval mode; gives the structure only.
      mesh: the images are split over its devices.
      reads: names of the outputs; the others are not computed.
      preprocessing: normalizes images of uint8; images of floats are read as they are.
      matmul_precision: see `TrainConfig`.
      deterministic: see `TrainConfig`.

    Raises:
      ValueError: when called, for an output that the head does not give.
    """
    head = model.spec.head.name
    given = tuple(reads), head, preprocessing, matmul_precision, deterministic
    return _forward(nnx.graphdef(model), mesh, *given)


def _forward(graph: nnx.GraphDef[Any], mesh: Mesh, *given: Any) -> Forward:  # noqa: ANN401
    try:
        return _make_forward(graph, mesh, *given)
    except TypeError:
        # A network of a plug-in may hold what has no hash, such as a list.
        return _make_forward.__wrapped__(graph, mesh, *given)


@functools.lru_cache(maxsize=16)
def _make_forward(
    graph: nnx.GraphDef[Any],
    mesh: Mesh,
    reads: tuple[str, ...],
    head: str,
    preprocessing: Preprocessing | None,
    matmul_precision: MatmulPrecision,
    deterministic: bool,
) -> Forward:
    sharding = batch_sharding(mesh)
    options = compiler_options(mesh, deterministic=deterministic)

    @functools.partial(jax.jit, out_shardings=sharding, compiler_options=options)
    @functools.partial(at_precision, matmul_precision)
    def outputs(params: Arrays, statistics: Arrays, images: Shaped[Array, "b h w 3"]) -> Any:  # noqa: ANN401
        found = merge_model(graph, params, statistics)(normalize_pixels(images, preprocessing))
        missing = [name for name in reads if name not in found]
        if missing:
            raise ValueError(
                f"the head {head} gives {', '.join(sorted(found))}, but not "
                f"{', '.join(missing)}, which is to be read: choose another head or evaluator"
            )
        return {name: found[name] for name in reads}

    def forward(params: Arrays, statistics: Arrays, images: np.ndarray) -> Outputs:
        rows = jax.make_array_from_process_local_data(sharding, images)
        return outputs(params, statistics, rows)

    return forward


def make_apply(
    model: Classifier,
    reads: Sequence[str] = ("logits",),
    *,
    preprocessing: Preprocessing | None = None,
    matmul_precision: MatmulPrecision = "default",
) -> Apply:
    """Returns `apply(images)`: outputs of the head, computed on all local devices; see `fetch`.

    What no image changes is computed once; see `mljax.models.folding`.

    The images are split over the devices, so their number must be a multiple of the devices'.

    Args:
      model: in eval mode.
      reads: names of the outputs.
      preprocessing: see `make_forward`.
      matmul_precision: see `TrainConfig`.
    """
    mesh, model = make_mesh(jax.local_devices()), at_precision(matmul_precision, fold)(model)
    graph, params, statistics = split_model(model)
    params, statistics = jax.device_put((params, statistics), replicated(mesh))
    given = tuple(reads), model.spec.head.name, preprocessing, matmul_precision, False
    forward = _forward(graph, mesh, *given)
    return lambda images: forward(params, statistics, images)


def fetch(outputs: Mapping[str, jax.Array | np.ndarray]) -> dict[str, np.ndarray]:
    """Returns this process's rows of outputs, once they are computed."""
    return {
        name: array if isinstance(array, np.ndarray) else local_rows(array)
        for name, array in outputs.items()
    }


def whole_batch(rows: int) -> int:
    """Returns the least batch size that has `rows` rows and is a multiple of the devices."""
    devices = jax.local_device_count()
    return -(-rows // devices) * devices
