"""jax's operations in ONNX: what a trace of a network is made of, and how each is written.

The table is `WRITERS`. A writer gets the graph, the traced equation and the values of its inputs,
and returns the value of its one output.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from jax.extend.core import JaxprEqn

from mljax.formats.onnx_graph import Graph, Shape, Tensor, UnwritableError, Value

Writer = Callable[..., Value]


def given(equation: JaxprEqn) -> list[Any]:
    """Returns shape and type of the inputs."""
    return [variable.aval for variable in equation.invars]


def _result(equation: JaxprEqn) -> Any:  # noqa: ANN401
    return equation.outvars[0].aval


def _straight(shape: Shape) -> tuple[int, ...]:
    return tuple(range(len(shape)))


def elementwise(*operations: str) -> Writer:
    """Returns the writer of an operation that broadcasts; further ones apply to its result."""

    def write(graph: Graph, equation: JaxprEqn, *values: Value) -> Value:
        inputs, shape, order = graph.aligned(values)
        name = functools.reduce(
            lambda name, operation: graph.add(operation, name),
            operations[1:],
            graph.add(operations[0], *inputs),
        )
        return Tensor(name, shape, order)

    return write


def _maximum(graph: Graph, equation: JaxprEqn, *values: Value) -> Value:
    zero = [value for value in values if isinstance(value, np.ndarray) and not value.any()]
    if not zero:
        return elementwise("Max")(graph, equation, *values)
    return elementwise("Relu")(graph, equation, *(x for x in values if x is not zero[0]))


def _leaky_relu(graph: Graph, equation: JaxprEqn, x: Value, slope: Value) -> Value:
    assert isinstance(x, Tensor)
    alpha = float(np.asarray(slope))
    return Tensor(graph.add("LeakyRelu", x.name, alpha=alpha), x.shape, x.order)


def _select(graph: Graph, equation: JaxprEqn, which: Value, *cases: Value) -> Value:
    if given(equation)[0].dtype != bool or len(cases) != 2:
        raise UnwritableError("more than two cases")
    return elementwise("Where")(graph, equation, which, cases[1], cases[0])


def _square(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    return elementwise("Mul")(graph, equation, x, x)


def _power(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    exponent = np.array(equation.params["y"], _result(equation).dtype)
    return elementwise("Pow")(graph, equation, x, exponent)


def _minus_one(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    raised = elementwise("Exp")(graph, equation, x)
    return elementwise("Sub")(graph, equation, raised, np.ones((), _result(equation).dtype))


def _clamp(graph: Graph, equation: JaxprEqn, least: Value, x: Value, most: Value) -> Value:
    at_least = elementwise("Max")(graph, equation, x, least)
    return elementwise("Min")(graph, equation, at_least, most)


def _cast(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    dtype = np.dtype(equation.params["new_dtype"])
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    if dtype == given(equation)[0].dtype:
        return x
    return Tensor(graph.add("Cast", x.name, to=_element_type(dtype)), x.shape, x.order)


def _element_type(dtype: Any) -> int:  # noqa: ANN401
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _broadcast(graph: Graph, equation: JaxprEqn, x: Value, *_: Value) -> Value:
    """Adds axes of size 1; what reads them repeats them, see `Tensor.shape`."""
    rank, places = len(_result(equation).shape), equation.params["broadcast_dimensions"]
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


def _reshape(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    """Splits and joins axes where they lie, if those to be joined lie side by side."""
    before, after = given(equation)[0].shape, _result(equation).shape
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
        order = _straight(before)
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


def _transpose(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    axes = equation.params["permutation"]
    if isinstance(x, np.ndarray):
        return x.transpose(axes)
    shape = tuple(x.shape[axis] for axis in axes)
    return Tensor(x.name, shape, tuple(axes.index(axis) for axis in x.order))


def _reduction(operation: str) -> Writer:
    def write(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
        assert isinstance(x, Tensor)
        reduced = equation.params["axes"]
        name = graph.whole(x, given(equation)[0].shape, x.order)
        axes = np.array([x.order.index(axis) for axis in reduced])
        return Tensor(
            graph.add(operation, name, axes, keepdims=0), _result(equation).shape, _left(x, reduced)
        )

    return write


def _left(x: Tensor, removed: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the order of the axes that are left, which are then counted anew."""
    left = [axis for axis in x.order if axis not in removed]
    return tuple(sorted(left).index(axis) for axis in left)


def _arg_max(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    assert isinstance(x, Tensor)
    (axis,) = equation.params["axes"]
    name = graph.whole(x, given(equation)[0].shape, x.order)
    name = graph.add("ArgMax", name, axis=x.order.index(axis), keepdims=0)
    to = _element_type(equation.params["index_dtype"])
    return Tensor(graph.add("Cast", name, to=to), _result(equation).shape, _left(x, (axis,)))


def _slice(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    assert isinstance(x, Tensor)
    before, after = given(equation)[0].shape, _result(equation).shape
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


def _pad(graph: Graph, equation: JaxprEqn, x: Value, filling: Value) -> Value:
    if not isinstance(x, Tensor):
        raise UnwritableError("a pad of a constant that depends on the batch")
    widths = [equation.params["padding_config"][axis] for axis in x.order]
    if any(inside for _, _, inside in widths):
        raise UnwritableError("a pad between elements")
    if not isinstance(filling, np.ndarray):
        raise UnwritableError("a pad by values that depend on the images")
    pads = np.array([*(low for low, _, _ in widths), *(high for _, high, _ in widths)])
    name = graph.whole(x, given(equation)[0].shape, x.order)
    return Tensor(graph.add("Pad", name, pads, filling), _result(equation).shape, x.order)


def _concatenate(graph: Graph, equation: JaxprEqn, *values: Value) -> Value:
    _, _, order = graph.aligned([value for value in values if isinstance(value, Tensor)])
    shapes = [each.shape for each in given(equation)]
    names = [graph.whole(v, shape, order) for v, shape in zip(values, shapes, strict=True)]
    axis = order.index(equation.params["dimension"])
    return Tensor(graph.add("Concat", *names, axis=axis), _result(equation).shape, order)


def _dot(graph: Graph, equation: JaxprEqn, x: Value, y: Value) -> Value:
    """Writes a product: of maps and a matrix as 1x1 convolution, of other values as Einsum."""
    (of_x, of_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    shapes = [each.shape for each in given(equation)]
    result = _result(equation).shape
    if isinstance(y, np.ndarray) and y.ndim == 2 and len(of_x) == 1 and not batch_x:
        y = y if of_y == (0,) else y.T
        if of_x == (len(shapes[0]) - 1,):
            return _times_matrix(graph, x, y, shapes[0], result)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    names_x = [next(letters) for _ in shapes[0]]
    names_y = [next(letters) for _ in shapes[1]]
    for first, second in zip((*of_x, *batch_x), (*of_y, *batch_y), strict=True):
        names_y[second] = names_x[first]
    names = [names_x[axis] for axis in batch_x]
    names += [names_x[axis] for axis in _straight(shapes[0]) if axis not in (*of_x, *batch_x)]
    names += [names_y[axis] for axis in _straight(shapes[1]) if axis not in (*of_y, *batch_y)]
    orders = [
        v.order if isinstance(v, Tensor) else _straight(s)
        for v, s in zip((x, y), shapes, strict=True)
    ]
    terms = [
        "".join(letter[axis] for axis in order)
        for letter, order in zip((names_x, names_y), orders, strict=True)
    ]
    inputs = [graph.whole(v, s, o) for v, s, o in zip((x, y), shapes, orders, strict=True)]
    name = graph.add("Einsum", *inputs, equation=f"{','.join(terms)}->{''.join(names)}")
    return Tensor(name, result, _straight(result))


def _times_matrix(graph: Graph, x: Value, matrix: np.ndarray, shape: Shape, result: Shape) -> Value:
    if len(shape) == 4:
        name = graph.whole(x, shape, (0, 3, 1, 2))
        name = graph.add("Conv", name, matrix.T[:, :, None, None])
        return Tensor(name, result, (0, 3, 1, 2))
    name = graph.add("MatMul", graph.whole(x, shape), matrix)
    return Tensor(name, result, _straight(result))


def _convolution(graph: Graph, equation: JaxprEqn, x: Value, kernel: Value) -> Value:
    params = equation.params
    of_x, of_kernel, of_result = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise UnwritableError("a transposed convolution")
    before, filters = (each.shape for each in given(equation))
    name = graph.add(
        "Conv",
        graph.whole(x, before, of_x),
        graph.whole(kernel, filters, of_kernel),
        strides=params["window_strides"],
        pads=[*(low for low, _ in params["padding"]), *(high for _, high in params["padding"])],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return Tensor(name, _result(equation).shape, of_result)


def _window(operation: str, **attributes: int) -> Writer:
    def write(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
        params, rank = equation.params, len(_result(equation).shape)
        window, strides = params["window_dimensions"], params["window_strides"]
        if (
            window[0] != 1
            or window[-1] != 1
            or {1}
            != {
                *params["base_dilation"],
                *params["window_dilation"],
            }
        ):
            raise UnwritableError("a window over the batch or the channels, or with holes")
        order = (0, rank - 1, *range(1, rank - 1))
        pads = params["padding"][1:-1]
        name = graph.add(
            operation,
            graph.whole(x, given(equation)[0].shape, order),
            kernel_shape=window[1:-1],
            strides=strides[1:-1],
            pads=[*(low for low, _ in pads), *(high for _, high in pads)],
            **attributes,
        )
        return Tensor(name, _result(equation).shape, order)

    return write


def _window_sum(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    mean = _window("AveragePool", count_include_pad=1)(graph, equation, x)
    count = np.array(np.prod(equation.params["window_dimensions"]), _result(equation).dtype)
    return elementwise("Mul")(graph, equation, mean, count)


def _gather(graph: Graph, equation: JaxprEqn, x: Value, indices: Value) -> Value:
    """Writes what takes along one axis: the same places of all, or a place of each."""
    numbers, shape = equation.params["dimension_numbers"], given(equation)[0].shape
    axes, sizes = numbers.start_index_map, equation.params["slice_sizes"]
    where = given(equation)[1].shape[:-1]
    if not where and isinstance(indices, np.ndarray):
        return _static_slice(graph, equation, x, indices.tolist())
    if len(axes) != 1 or numbers.collapsed_slice_dims != axes or sizes[axes[0]] != 1:
        raise UnwritableError("indices along several axes")
    (axis,) = axes
    others = tuple(a for a in _straight(shape) if a != axis)
    batching = numbers.operand_batching_dims
    index = graph.whole(indices, (*where, 1))
    index = graph.add("Squeeze", index, np.array([len(where)]))
    result = _result(equation).shape
    if batching == others and numbers.start_indices_batching_dims == others:
        name = graph.add("GatherElements", graph.whole(x, shape), index, axis=axis)
    elif not batching and tuple(sizes[a] for a in others) == tuple(shape[a] for a in others):
        taken = range(axis, axis + len(where))
        if numbers.offset_dims != tuple(a for a in _straight(result) if a not in taken):
            raise UnwritableError("indices whose axes move")
        name = graph.add("Gather", graph.whole(x, shape), index, axis=axis)
    else:
        raise UnwritableError("slices at indices")
    return Tensor(name, result, _straight(result))


def _static_slice(graph: Graph, equation: JaxprEqn, x: Value, starts: list[int]) -> Value:
    """Writes one slice at a place that is known, without some of its axes of size 1."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    axes = numbers.start_index_map
    ends = [start + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
    name = graph.whole(x, given(equation)[0].shape)
    name = graph.add("Slice", name, np.array(starts), np.array(ends), np.array(axes))
    if numbers.collapsed_slice_dims:
        name = graph.add("Squeeze", name, np.array(numbers.collapsed_slice_dims))
    result = _result(equation).shape
    return Tensor(name, result, _straight(result))


def _same(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    return x


WRITERS: dict[str, Writer] = {
    "abs": elementwise("Abs"),
    "add": elementwise("Add"),
    "add_any": elementwise("Add"),
    "and": elementwise("And"),
    "argmax": _arg_max,
    "broadcast_in_dim": _broadcast,
    "ceil": elementwise("Ceil"),
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "copy": _same,
    "cos": elementwise("Cos"),
    "div": elementwise("Div"),
    "dot_general": _dot,
    "eq": elementwise("Equal"),
    "erf": elementwise("Erf"),
    "exp": elementwise("Exp"),
    "expm1": _minus_one,
    "floor": elementwise("Floor"),
    "gather": _gather,
    "ge": elementwise("GreaterOrEqual"),
    "gt": elementwise("Greater"),
    "integer_pow": _power,
    "le": elementwise("LessOrEqual"),
    "log": elementwise("Log"),
    "logistic": elementwise("Sigmoid"),
    "lt": elementwise("Less"),
    "max": _maximum,
    "min": elementwise("Min"),
    "mul": elementwise("Mul"),
    "ne": elementwise("Equal", "Not"),
    "neg": elementwise("Neg"),
    "not": elementwise("Not"),
    "or": elementwise("Or"),
    "pad": _pad,
    "pow": elementwise("Pow"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_window_max": _window("MaxPool"),
    "reduce_window_sum": _window_sum,
    "reshape": _reshape,
    "rsqrt": elementwise("Sqrt", "Reciprocal"),
    "select_n": _select,
    "sign": elementwise("Sign"),
    "sin": elementwise("Sin"),
    "slice": _slice,
    "sqrt": elementwise("Sqrt"),
    "square": _square,
    "squeeze": _reshape,
    "stop_gradient": _same,
    "sub": elementwise("Sub"),
    "tanh": elementwise("Tanh"),
    "transpose": _transpose,
}
"""jax's primitives."""

FUNCTIONS: dict[str, Writer] = {"leaky_relu": _leaky_relu}
"""jax's compiled functions that ONNX has as one operation; others are written as what they call."""

LOOK_AT_CONSTANTS = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose")
"""Primitives whose writers make constants of constants, without compiling anything."""
