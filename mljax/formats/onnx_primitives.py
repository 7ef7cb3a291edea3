"""jax's operations in ONNX: what a trace of a network is made of, and how each is written.

The table is `WRITERS`. A writer gets the graph, the traced equation and the values of its inputs,
and returns the value of its one output.
"""

import functools
from typing import Any

import numpy as np
import onnx
from jax.extend.core import JaxprEqn

from mljax.formats.onnx_axes import (
    broadcast,
    concatenate,
    gather,
    pad,
    reshape,
    slice_axes,
    transpose,
)
from mljax.formats.onnx_graph import (
    Graph,
    Tensor,
    UnwritableError,
    Value,
    Writer,
    inputs_of,
    result_of,
)
from mljax.formats.onnx_products import convolution, dot, window, window_sum


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
    if inputs_of(equation)[0].dtype != bool or len(cases) != 2:
        raise UnwritableError("more than two cases")
    return elementwise("Where")(graph, equation, which, cases[1], cases[0])


def _square(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    return elementwise("Mul")(graph, equation, x, x)


def _power(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    exponent = np.array(equation.params["y"], result_of(equation).dtype)
    return elementwise("Pow")(graph, equation, x, exponent)


def _minus_one(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    raised = elementwise("Exp")(graph, equation, x)
    return elementwise("Sub")(graph, equation, raised, np.ones((), result_of(equation).dtype))


def _clamp(graph: Graph, equation: JaxprEqn, least: Value, x: Value, most: Value) -> Value:
    at_least = elementwise("Max")(graph, equation, x, least)
    return elementwise("Min")(graph, equation, at_least, most)


def _cast(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    dtype = np.dtype(equation.params["new_dtype"])
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    if dtype == inputs_of(equation)[0].dtype:
        return x
    return Tensor(graph.add("Cast", x.name, to=_element_type(dtype)), x.shape, x.order)


def _element_type(dtype: Any) -> int:  # noqa: ANN401
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _reduction(operation: str) -> Writer:
    def write(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
        assert isinstance(x, Tensor)
        reduced = equation.params["axes"]
        name = graph.whole(x, inputs_of(equation)[0].shape, x.order)
        axes = np.array([x.order.index(axis) for axis in reduced])
        name = graph.add(operation, name, axes, keepdims=0)
        return Tensor(name, result_of(equation).shape, _left(x, reduced))

    return write


def _left(x: Tensor, removed: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the order of the axes that are left, which are then counted anew."""
    left = [axis for axis in x.order if axis not in removed]
    return tuple(sorted(left).index(axis) for axis in left)


def _arg_max(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    assert isinstance(x, Tensor)
    (axis,) = equation.params["axes"]
    name = graph.whole(x, inputs_of(equation)[0].shape, x.order)
    name = graph.add("ArgMax", name, axis=x.order.index(axis), keepdims=0)
    to = _element_type(equation.params["index_dtype"])
    return Tensor(graph.add("Cast", name, to=to), result_of(equation).shape, _left(x, (axis,)))


def _same(graph: Graph, equation: JaxprEqn, x: Value) -> Value:
    return x


WRITERS: dict[str, Writer] = {
    "abs": elementwise("Abs"),
    "add": elementwise("Add"),
    "add_any": elementwise("Add"),
    "and": elementwise("And"),
    "argmax": _arg_max,
    "broadcast_in_dim": broadcast,
    "ceil": elementwise("Ceil"),
    "clamp": _clamp,
    "concatenate": concatenate,
    "conv_general_dilated": convolution,
    "convert_element_type": _cast,
    "copy": _same,
    "cos": elementwise("Cos"),
    "div": elementwise("Div"),
    "dot_general": dot,
    "eq": elementwise("Equal"),
    "erf": elementwise("Erf"),
    "exp": elementwise("Exp"),
    "expm1": _minus_one,
    "floor": elementwise("Floor"),
    "gather": gather,
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
    "name": _same,
    "ne": elementwise("Equal", "Not"),
    "neg": elementwise("Neg"),
    "not": elementwise("Not"),
    "or": elementwise("Or"),
    "pad": pad,
    "pow": elementwise("Pow"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_window_max": window("MaxPool"),
    "reduce_window_sum": window_sum,
    "reshape": reshape,
    "rsqrt": elementwise("Sqrt", "Reciprocal"),
    "select_n": _select,
    "sign": elementwise("Sign"),
    "sin": elementwise("Sin"),
    "slice": slice_axes,
    "sqrt": elementwise("Sqrt"),
    "square": _square,
    "squeeze": reshape,
    "stop_gradient": _same,
    "sub": elementwise("Sub"),
    "tanh": elementwise("Tanh"),
    "transpose": transpose,
}
"""jax's primitives."""

FUNCTIONS: dict[str, Writer] = {"leaky_relu": _leaky_relu}
"""jax's compiled functions that ONNX has as one operation; others are written as what they call."""

LOOK_AT_CONSTANTS = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose")
"""Primitives whose writers make constants of constants, without compiling anything."""
