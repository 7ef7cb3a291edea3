"""Traces of functions, written into ONNX graphs equation by equation."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from mljax.formats.computation import Computation
from mljax.formats.onnx_graph import Graph, UnwritableError, Value, inputs_of
from mljax.formats.onnx_primitives import FUNCTIONS, LOOK_AT_CONSTANTS, WRITERS


def write_model(computation: Computation) -> onnx.ModelProto:
    """Returns a computation as an ONNX model with the input `images`, checked.

    Raises:
      UnwritableError: see `write_trace`.
    """
    images = computation.images
    graph = Graph(batch=images.shape[0])
    given = graph.add_input("images", images.shape, images.dtype)
    traced, shapes = jax.make_jaxpr(computation.function, return_shape=True)(images)
    names = sorted(shapes)
    for name, value in zip(names, write_trace(graph, traced, [given]), strict=True):
        graph.add_output(name, value, shapes[name].shape, shapes[name].dtype)
    return graph.model(computation.metadata)


def write_trace(graph: Graph, traced: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    """Adds a traced function to a graph; returns the values of its outputs.

    What no input changes is computed here, and becomes a constant. Of what depends on the platform,
    the graph gets what is not made for any.

    Raises:
      UnwritableError: for an operation that the graph cannot have, with the line of code.
    """
    values: dict[Any, Value] = {}

    def read(variable: Any) -> Value:  # noqa: ANN401
        return np.asarray(variable.val) if isinstance(variable, Literal) else values[variable]

    jaxpr: Jaxpr = traced.jaxpr
    constants = [np.asarray(constant) for constant in traced.consts]
    values.update(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))
    for equation in jaxpr.eqns:
        try:
            found = _write(graph, equation, [read(variable) for variable in equation.invars])
        except UnwritableError as error:
            # Of functions of jax itself no line is known, but of what calls them.
            line = source_info_util.summarize(equation.source_info)
            if not line or error.__cause__ is not None:
                raise
            raise UnwritableError(f"ONNX, {line}: {error}") from error
        values.update(zip(equation.outvars, found, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _write(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    name = equation.primitive.name
    if name == "platform_index":
        return [np.asarray(len(equation.params["platforms"]) - 1)]
    if name == "cond":
        if not isinstance(inputs[0], np.ndarray):
            raise UnwritableError("a branch that depends on the images")
        return write_trace(graph, equation.params["branches"][int(inputs[0])], inputs[1:])
    function = FUNCTIONS.get(equation.params.get("name", ""))
    if function is not None and name in ("jit", "pjit"):
        return [function(graph, equation, *inputs)]
    if (called := _called(equation)) is not None:
        return write_trace(graph, called, inputs)
    constant = all(isinstance(value, np.ndarray) for value in inputs)
    if constant and name not in LOOK_AT_CONSTANTS and _is_static(equation):
        return _compute(equation, inputs)
    if name not in WRITERS:
        raise UnwritableError(f"{name} is not in mljax.formats.onnx_primitives")
    return [WRITERS[name](graph, equation, *inputs)]


def _called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Returns what an equation calls: another trace, as of a function that is compiled."""
    for value in equation.params.values():
        if isinstance(value, ClosedJaxpr):
            return value
        if isinstance(value, Jaxpr):
            return ClosedJaxpr(value, ())
    return None


def _is_static(equation: JaxprEqn) -> bool:
    variables: list[Any] = [*equation.invars, *equation.outvars]
    shapes = [variable.aval.shape for variable in variables]
    return all(isinstance(size, int) for shape in shapes for size in shape)


def _compute(equation: JaxprEqn, inputs: list[Any]) -> list[Value]:
    shapes = [each.shape for each in inputs_of(equation)]
    arrays = [np.broadcast_to(x, shape) for x, shape in zip(inputs, shapes, strict=True)]
    found = equation.primitive.bind(*map(jax.numpy.asarray, arrays), **equation.params)
    return list(map(np.asarray, found if equation.primitive.multiple_results else [found]))
