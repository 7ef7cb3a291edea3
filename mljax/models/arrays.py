"""A network as flat dicts of arrays, and back."""

from typing import TYPE_CHECKING, Any

from flax import nnx

from mljax.layers.variables import OfClasses

if TYPE_CHECKING:
    from mljax.models.classifier import Classifier

Arrays = dict[str, Any]


def split_model(model: "Classifier") -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Returns a network's structure, its parameters and its statistics: all other arrays.

    The arrays are flat dicts by dotted path, such as `head.linear.bias`.
    """
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return graph, _flat(params), _flat(rest)


def merge_model(graph: nnx.GraphDef, params: Arrays, statistics: Arrays) -> "Classifier":
    """Returns the network again; the inverse of `split_model`."""
    flat: dict[Any, Any] = {
        tuple(int(key) if key.isdigit() else key for key in path.split(".")): array
        for path, array in {**params, **statistics}.items()
    }
    return nnx.merge(graph, nnx.from_flat_state(flat))


def class_arrays(model: "Classifier") -> Arrays:
    """Returns the arrays that belong to the classes of the network, by dotted path."""
    return _flat(nnx.state(model, OfClasses))


def _flat(state: nnx.State) -> Arrays:
    flat = nnx.to_flat_state(state)
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}
