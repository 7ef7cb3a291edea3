"""A network as flat dicts of arrays, and back."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

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


def pad_channels(arrays: Arrays, multiple: int) -> Arrays:
    """Returns the arrays of a convolutional backbone with zeros for more channels, others as given.

    The last two axes of filters and the axis of vectors, where longer than `multiple`, are filled
    up to its multiples: all layers agree, since equal sides stay equal. The channels of an image
    are fewer, and stay. New channels are 0 in all maps, so that the others are as before.

    Args:
      arrays: by dotted path.
      multiple: of channels that the device is quick with; 1 changes nothing.
    """

    def padded(array: Array) -> Array:
        channels = range(max(array.ndim - 2, 0), array.ndim)
        more = [
            (0, -side % multiple if axis in channels and side > multiple else 0)
            for axis, side in enumerate(array.shape)
        ]
        return jnp.pad(array, more) if any(after for _, after in more) else array

    return {p: padded(a) if p.startswith("backbone.") else a for p, a in arrays.items()}


def crop_channels(arrays: Arrays, like: Arrays) -> Arrays:
    """Returns the arrays with the shapes of `like`; what `pad_channels` added is gone."""

    def cropped(array: Array, shape: tuple[int, ...]) -> Array:
        return array if array.shape == shape else array[tuple(slice(side) for side in shape)]

    return {p: cropped(a, like[p].shape) for p, a in arrays.items()}


def class_arrays(model: "Classifier") -> Arrays:
    """Returns the arrays that belong to the classes of the network, by dotted path."""
    return _flat(nnx.state(model, OfClasses))


def _flat(state: nnx.State) -> Arrays:
    flat = nnx.to_flat_state(state)
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}
