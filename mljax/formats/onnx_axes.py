"""Operations on axes: split, joined, permuted, cut, padded, taken from. See `onnx_primitives`."""

import itertools

import numpy as np
from jax.extend.core import JaxprEqn

from mljax.formats.onnx_graph import (
    Graph,
    Shape,
    Tensor,
    UnwritableError,
    Value,
    inputs_of,
    result_of,
    straight,
)


def broadcast(graph: Graph, equation: JaxprEqn, x: Value, *_: Value) -> Value:
    """Adds axes of size 1; what reads them repeats them, see `Tensor.shape`."""
    rank, places = len(result_of(equation).shape), equation.params["broadcast_dimensions"]
    shape = [1] * rank
    for place, size in zip(places, x.shape, strict=True):
        shape[place] = size
    if isinstance(x, np.ndarray):
        return x.reshape(shape)
    added = [axis for axis in range(rank) if axis not in places]
    order = [places[axis] for axis in x.order]
    for axis in added:
        order.insert(axis, axis)
    if not added:
        return Tensor(x.name, tuple(shape), tuple(order))
    axes = np.array([order.index(axis) for axis in added])
    return Tensor(graph.add("Unsqueeze", x.name, axes), tuple(shape), tuple(order))


def reshape(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    """Splits and joins axes where they lie, if those to be joined lie side by side."""
    before, after = inputs_of(equation)[0].shape, result_of(equation).shape
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, before).reshape(after)
    groups = _groups(before, after)
    order = x.order
    of_axis = {axis: group for group in groups for axis in group[0]}
    along = [group for group, _ in itertools.groupby(order, key=lambda axis: of_axis[axis])]
    lie_side_by_side = len(along) == len(set(along)) and all(
        group[0] == tuple(axis for axis in order if axis in group[0]) for group in along
    )
    if not lie_side_by_side:
        order = straight(before)
        along = [group for group in groups if group[0]]
    new_order = [axis for group in along for axis in group[1]]
    for axis in sorted(axis for first, second in groups if not first for axis in second):
        new_order.insert(axis, axis)
    sizes = [after[axis] if isinstance(after[axis], int) else -1 for axis in new_order]
    name = graph.add("Reshape", graph.whole(x, before, order), np.array(sizes))
    return Tensor(name, after, tuple(new_order))


Group = tuple[tuple[int, ...], tuple[int, ...]]


def _groups(before: Shape, after: Shape) -> list[Group]:
    """Returns which axes become which: the smallest groups of as many numbers on both sides."""
    groups: list[Group] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and j < len(after) and before[i] == after[j]:
            groups.append(((i,), (j,)))
            i, j = i + 1, j + 1
        elif j < len(after) and after[j] == 1:
            groups.append(((), (j,)))
            j += 1
        elif i < len(before) and before[i] == 1:
            groups.append(((i,), ()))
            i += 1
        else:
            first, second = [i], [j]
            sizes = before[i], after[j]
            while sizes[0] != sizes[1]:
                if sizes[0] < sizes[1]:
                    first.append(first[-1] + 1)
                    sizes = sizes[0] * before[first[-1]], sizes[1]
                else:
                    second.append(second[-1] + 1)
                    sizes = sizes[0], sizes[1] * after[second[-1]]
            groups.append((tuple(first), tuple(second)))
            i, j = first[-1] + 1, second[-1] + 1
    return groups


def transpose(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    """Permutes axes, which moves nothing until an operation needs them in order."""
    axes = equation.params["permutation"]
    if isinstance(x, np.ndarray):
        return x.transpose(axes)
    shape = tuple(x.shape[axis] for axis in axes)
    return Tensor(x.name, shape, tuple(axes.index(axis) for axis in x.order))


def slice_axes(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    """Cuts the axes that get shorter."""
    assert isinstance(x, Tensor)
    before, after = inputs_of(equation)[0].shape, result_of(equation).shape
    params = equation.params
    cut = [axis for axis in range(len(before)) if before[axis] != after[axis]]
    if not cut:
        return x
    steps = params["strides"] or (1,) * len(before)
    name = graph.add(
        "Slice",
        graph.whole(x, before, x.order),
        np.array([params["start_indices"][axis] for axis in cut]),
        np.array([params["limit_indices"][axis] for axis in cut]),
        np.array([x.order.index(axis) for axis in cut]),
        np.array([steps[axis] for axis in cut]),
    )
    return Tensor(name, after, x.order)


def pad(graph: Graph, equation: JaxprEqn, x: Value, filling: Value) -> Value:
    """Adds equal values around; negative widths cut."""
    if not isinstance(x, Tensor):
        raise UnwritableError("a pad of a constant that depends on the batch")
    widths = [equation.params["padding_config"][axis] for axis in x.order]
    if any(inside for _, _, inside in widths):
        raise UnwritableError("a pad between elements")
    if not isinstance(filling, np.ndarray):
        raise UnwritableError("a pad by values that depend on the images")
    pads = np.array([*(low for low, _, _ in widths), *(high for _, high, _ in widths)])
    name = graph.whole(x, inputs_of(equation)[0].shape, x.order)
    return Tensor(graph.add("Pad", name, pads, filling), result_of(equation).shape, x.order)


def concatenate(graph: Graph, equation: JaxprEqn, *values: Value) -> Value:
    """Joins values along an axis."""
    _, _, order = graph.aligned([value for value in values if isinstance(value, Tensor)])
    shapes = [each.shape for each in inputs_of(equation)]
    names = [graph.whole(v, shape, order) for v, shape in zip(values, shapes, strict=True)]
    axis = order.index(equation.params["dimension"])
    return Tensor(graph.add("Concat", *names, axis=axis), result_of(equation).shape, order)


def gather(graph: Graph, equation: JaxprEqn, x: Value, indices: Value) -> Value:
    """Writes what takes along one axis: the same places of all, or a place of each."""
    numbers, shape = equation.params["dimension_numbers"], inputs_of(equation)[0].shape
    axes, sizes = numbers.start_index_map, equation.params["slice_sizes"]
    where = inputs_of(equation)[1].shape[:-1]
    if not where and isinstance(indices, np.ndarray):
        return _static_slice(graph, equation, x, indices.tolist())
    if len(axes) != 1 or numbers.collapsed_slice_dims != axes or sizes[axes[0]] != 1:
        raise UnwritableError("indices along several axes")
    (axis,) = axes
    others = tuple(a for a in straight(shape) if a != axis)
    batching = numbers.operand_batching_dims
    index = graph.whole(indices, (*where, 1))
    index = graph.add("Squeeze", index, np.array([len(where)]))
    result = result_of(equation).shape
    if batching and batching == others and numbers.start_indices_batching_dims == others:
        name = graph.add("GatherElements", graph.whole(x, shape), index, axis=axis)
    elif not batching and tuple(sizes[a] for a in others) == tuple(shape[a] for a in others):
        taken = range(axis, axis + len(where))
        if numbers.offset_dims != tuple(a for a in straight(result) if a not in taken):
            raise UnwritableError("indices whose axes move")
        name = graph.add("Gather", graph.whole(x, shape), index, axis=axis)
    else:
        raise UnwritableError("slices at indices")
    return Tensor(name, result, straight(result))


def _static_slice(graph: Graph, equation: JaxprEqn, x: Value, starts: list[int]) -> Value:
    """Writes one slice at a place that is known, without some of its axes of size 1."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = numbers.start_index_map
    ends = [start + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
    name = graph.whole(x, inputs_of(equation)[0].shape)
    name = graph.add("Slice", name, np.array(starts), np.array(ends), np.array(axes))
    if numbers.collapsed_slice_dims:
        name = graph.add("Squeeze", name, np.array(numbers.collapsed_slice_dims))
    result = result_of(equation).shape
    return Tensor(name, result, straight(result))
