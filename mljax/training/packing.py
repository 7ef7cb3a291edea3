"""Arrays of a state in a few flat buffers, for an update in few launches that compiles quickly."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mljax.models.arrays import Arrays
from mljax.training.gradients import Found, Gradients, Variables
from mljax.training.objective import Batch
from mljax.training.state import TrainState


class Buffers:
    """Which arrays share a buffer: those that an optimizer of single values treats alike.

    They have one group, one number of axes and one dtype, and all or none are biases. A buffer is
    named as its first array and has its number of axes, all but the last of size 1, so that masks
    and patterns choose it as they choose each array in it. An array without axes stays alone.

    Args:
      arrays: by dotted path; shapes suffice.
      groups: path to group of the optimizer.

    Attributes:
      pack: arrays to buffers. An optimizer's placeholders for what it leaves out stay.
    """

    def __init__(self, arrays: Arrays, groups: Mapping[str, str] | None = None) -> None:
        kinds: dict[Any, list[str]] = {}
        for path, array in arrays.items():
            alone = None if array.ndim else path
            group = None if groups is None else groups[path]
            kind = group, array.ndim, array.dtype, path.endswith(".bias"), alone
            kinds.setdefault(kind, []).append(path)
        self._paths = {paths[0]: paths for paths in kinds.values()}
        self._shapes = {path: array.shape for path, array in arrays.items()}
        # Compiled once for params, average and moments.
        self.pack = jax.jit(self._pack)

    def _pack(self, arrays: Arrays) -> Arrays:
        return {name: self._join(name, arrays) for name in self._paths}

    def unpack(self, buffers: Arrays) -> Arrays:
        """Returns the arrays of buffers; the inverse of `pack`."""
        arrays: Arrays = {}
        for name, paths in self._paths.items():
            arrays |= dict(zip(paths, self._split(buffers[name], paths), strict=True))
        return {path: arrays[path] for path in self._shapes}

    def in_tree(self, tree: Any, *, packed: bool) -> Any:  # noqa: ANN401
        """Returns an optimizer's state with each dict of arrays packed, or unpacked again."""
        names = self._shapes if not packed else self._paths
        change = self.unpack if packed else self.pack

        def is_ours(node: object) -> bool:
            return isinstance(node, dict) and node.keys() == names.keys()

        return jax.tree.map(lambda x: change(x) if is_ours(x) else x, tree, is_leaf=is_ours)

    def _join(self, name: str, arrays: Arrays) -> Any:  # noqa: ANN401
        joined = [arrays[path] for path in self._paths[name]]
        axes = len(self._shapes[name])
        if isinstance(joined[0], optax.MaskedNode) or not axes:
            return joined[0]
        flat = jnp.concatenate([array.reshape(-1) for array in joined])
        return jnp.expand_dims(flat, tuple(range(axes - 1)))

    def _split(self, buffer: Any, paths: list[str]) -> list[Any]:  # noqa: ANN401
        shapes = [self._shapes[path] for path in paths]
        if isinstance(buffer, optax.MaskedNode) or not shapes[0]:
            return [buffer] * len(paths)
        starts = itertools.accumulate(map(math.prod, shapes[:-1]), initial=0)
        return [_cut(buffer, start, shape) for start, shape in zip(starts, shapes, strict=True)]


# One program for each shape: one for all arrays together takes many times as long to compile.
@functools.partial(jax.jit, static_argnums=2)
def _cut(buffer: jax.Array, start: int | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    flat = jax.lax.dynamic_slice(buffer.reshape(-1), (start,), (math.prod(shape),))
    return flat.reshape(shape)


class Packing:
    """Between a state by path and its packed form, a `TrainState` of buffers.

    Params, statistics, their averages and the optimizer's moments are packed; counters and trackers
    are not.

    Args:
      state: by path; shapes suffice.
      groups: path of each parameter to its group of the optimizer.
    """

    def __init__(self, state: TrainState, groups: Mapping[str, str]) -> None:
        self._params = Buffers(state.params, groups)
        self._statistics = Buffers(state.statistics)

    def pack(self, state: TrainState) -> TrainState:
        """Returns the packed form."""
        params, statistics = self._params.pack, self._statistics.pack
        opt_state = self._params.in_tree(state.opt_state, packed=False)
        return _replace(state, params, statistics, opt_state)

    def take(self, state: TrainState) -> TrainState:
        """Returns the packed form, and frees what it is a copy of."""
        packed = self.pack(state)
        kept = {id(array) for array in jax.tree.leaves(packed)}
        for array in jax.tree.leaves(state):
            if id(array) not in kept:
                array.delete()
        return packed

    def unpack(self, state: TrainState) -> TrainState:
        """Returns the state by path; the inverse of `pack`."""
        params, statistics = self._params.unpack, self._statistics.unpack
        opt_state = self._params.in_tree(state.opt_state, packed=True)
        return _replace(state, params, statistics, opt_state)

    def gradients(self, gradients: Gradients) -> Gradients:
        """Returns the gradients as a function of the packed params and statistics, packed too."""

        def packed(params: Arrays, variables: Variables, batch: Batch, key: jax.Array) -> Found:
            statistics = self._statistics.unpack(variables["statistics"])
            variables = {**variables, "statistics": statistics}
            (loss, (variables, terms)), grads = gradients(
                self._params.unpack(params), variables, batch, key
            )
            grads = self._params.pack(grads)
            statistics = self._statistics.pack(variables["statistics"])
            return (loss, ({**variables, "statistics": statistics}, terms)), grads

        return packed


def _replace(
    state: TrainState,
    params: Callable[[Arrays], Arrays],
    statistics: Callable[[Arrays], Arrays],
    opt_state: Any,  # noqa: ANN401
) -> TrainState:
    return replace(
        state,
        params=params(state.params),
        statistics=statistics(state.statistics),
        ema_params=params(state.ema_params) if state.ema_params else {},
        ema_statistics=statistics(state.ema_statistics) if state.ema_statistics else {},
        opt_state=opt_state,
    )
