"""Convolutions, matrix products and windows. See `onnx_primitives`."""

import numpy as np
from jax.extend.core import JaxprEqn

from mljax.formats.onnx_graph import (
    Graph,
    Shape,
    Tensor,
    UnwritableError,
    Value,
    Writer,
    inputs_of,
    result_of,
    straight,
)


def dot(graph: Graph, equation: JaxprEqn, x: Value, y: Value) -> Value:
    """Writes a product: of maps and a matrix as 1x1 convolution, of other values as Einsum."""
    (of_x, of_y), (batch_x, batch_y) = equation.params["dimension_numbers"]
    shapes = [each.shape for each in inputs_of(equation)]
    result = result_of(equation).shape
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
    names += [names_x[axis] for axis in straight(shapes[0]) if axis not in (*of_x, *batch_x)]
    names += [names_y[axis] for axis in straight(shapes[1]) if axis not in (*of_y, *batch_y)]
    orders = [
        v.order if isinstance(v, Tensor) else straight(s)
        for v, s in zip((x, y), shapes, strict=True)
    ]
    terms = [
        "".join(letter[axis] for axis in order)
        for letter, order in zip((names_x, names_y), orders, strict=True)
    ]
    inputs = [graph.whole(v, s, o) for v, s, o in zip((x, y), shapes, orders, strict=True)]
    name = graph.add("Einsum", *inputs, equation=f"{','.join(terms)}->{''.join(names)}")
    return Tensor(name, result, straight(result))


def _times_matrix(graph: Graph, x: Value, matrix: np.ndarray, shape: Shape, result: Shape) -> Value:
    if len(shape) == 4:
        name = graph.whole(x, shape, (0, 3, 1, 2))
        name = graph.add("Conv", name, matrix.T[:, :, None, None])
        return Tensor(name, result, (0, 3, 1, 2))
    name = graph.add("MatMul", graph.whole(x, shape), matrix)
    return Tensor(name, result, straight(result))


def convolution(graph: Graph, equation: JaxprEqn, x: Value, kernel: Value) -> Value:
    """Convolves maps, also in groups; the map that comes out lies as the convolution makes it."""
    params = equation.params
    of_x, of_kernel, of_result = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise UnwritableError("a transposed convolution")
    before, filters = (each.shape for each in inputs_of(equation))
    name = graph.add(
        "Conv",
        graph.whole(x, before, of_x),
        graph.whole(kernel, filters, of_kernel),
        strides=params["window_strides"],
        pads=[*(low for low, _ in params["padding"]), *(high for _, high in params["padding"])],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    return Tensor(name, result_of(equation).shape, of_result)


def window(operation: str, **attributes: int) -> Writer:
    """Returns the writer of a pooling operation over space."""

    def write(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
        params, rank = equation.params, len(result_of(equation).shape)
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
            graph.whole(x, inputs_of(equation)[0].shape, order),
            kernel_shape=window[1:-1],
            strides=strides[1:-1],
            pads=[*(low for low, _ in pads), *(high for _, high in pads)],
            **attributes,
        )
        return Tensor(name, result_of(equation).shape, order)

    return write


def window_sum(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    """Sums over windows: the mean, times the size of the window."""
    mean = window("AveragePool", count_include_pad=1)(graph, equation, x)
    assert isinstance(mean, Tensor)
    count = np.array(np.prod(equation.params["window_dimensions"]), result_of(equation).dtype)
    return Tensor(graph.add("Mul", mean.name, count), mean.shape, mean.order)
