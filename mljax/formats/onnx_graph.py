"""ONNX graphs of traced functions: what holds their values. `onnx_trace` writes the operations.

Convolutions of ONNX read `[b, c, h, w]`, those of jax `[b, h, w, c]`. A value therefore says in
which order its axes lie: one that a convolution has made stays as it is through sums, slices, pads
and means, and is transposed only where an operation needs another order.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from jax.extend.core import JaxprEqn

OPSET = 18
Shape = tuple[Any, ...]
"""Integers, and symbols of `jax.export`, such as the size of the batch."""


class UnwritableError(ValueError):
    """Something that an ONNX graph, or this writer of them, does not have."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that depends on the input; those that do not are numpy arrays.

    Attributes:
      name: in the graph.
      shape: of the traced array, but 1 along an axis whose values are all equal: operations that
        ONNX broadcasts need not repeat them.
      order: the axis of the traced array that each axis of the tensor is.
    """

    name: str
    shape: Shape
    order: tuple[int, ...]


Value = Tensor | np.ndarray
Writer = Callable[..., Value]
"""Gets the graph, a traced operation and its inputs; returns its output."""


class Graph:
    """An ONNX graph in the making.

    Args:
      batch: the symbol of the size of the batch, the first axis of every input.
    """

    def __init__(self, batch: Any) -> None:  # noqa: ANN401
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._transposed: dict[tuple[str, tuple[int, ...]], str] = {}
        self._batch = batch
        self._batch_size: str | None = None

    def add(self, operation: str, *inputs: str | np.ndarray, **attributes: Any) -> str:  # noqa: ANN401
        """Adds a node of one output; returns its name."""
        names = [self._constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
        output = f"{operation}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operation, names, [output], **attributes))
        return output

    def _constant(self, array: np.ndarray) -> str:
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            # Not an array in Fortran's order, which would be written as it lies.
            tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
            tensor.dims[:] = array.shape
            self._constants[key] = tensor
        return self._constants[key].name

    def add_input(self, name: str, shape: Shape, dtype: Any) -> Tensor:  # noqa: ANN401
        """Adds an input; returns its value."""
        self.inputs.append(_described(name, shape, dtype))
        return Tensor(name, shape, straight(shape))

    def add_output(self, name: str, value: Value, shape: Shape, dtype: Any) -> None:  # noqa: ANN401
        """Makes a value an output."""
        found = self.whole(value, shape)
        self.nodes.append(
            onnx.helper.make_node(
                "Identity",
                [self._constant(found) if isinstance(found, np.ndarray) else found],
                [name],
            )
        )
        self.outputs.append(_described(name, shape, dtype))

    def ordered(self, value: Value, order: tuple[int, ...]) -> str | np.ndarray:
        """Returns a value with its axes in an order; a constant of one number as it is."""
        if isinstance(value, np.ndarray):
            return value.transpose(order) if value.ndim else value
        if value.order == order:
            return value.name
        key = value.name, order
        if key not in self._transposed:
            axes = [value.order.index(axis) for axis in order]
            self._transposed[key] = self.add("Transpose", value.name, perm=axes)
        return self._transposed[key]

    def whole(
        self, value: Value, shape: Shape, order: tuple[int, ...] | None = None
    ) -> str | np.ndarray:
        """Returns all of a value's numbers, also those that `Tensor.shape` leaves out."""
        order = order or straight(shape)
        if isinstance(value, np.ndarray) and all(isinstance(size, int) for size in shape):
            return np.broadcast_to(value, shape).transpose(order)
        found = self.ordered(value, order)
        if tuple(value.shape) == tuple(shape):
            return found
        return self.add("Expand", found, self._sizes([shape[axis] for axis in order]))

    def _sizes(self, shape: Sequence[Any]) -> str:
        """Returns a vector of sizes, that of the batch among them."""
        if self._batch_size is None:
            self._batch_size = self.add("Shape", self.inputs[0].name, start=0, end=1)
        sizes = []
        for size in shape:
            if isinstance(size, int):
                sizes.append(self._constant(np.array([size])))
            elif size == self._batch:
                sizes.append(self._batch_size)
            else:
                raise UnwritableError(f"an axis of size {size}, where b is the batch")
        return self.add("Concat", *sizes, axis=0)

    def aligned(
        self, values: Sequence[Value]
    ) -> tuple[list[str | np.ndarray], Shape, tuple[int, ...]]:
        """Returns values for an operation that broadcasts, the shape of its result, its order."""
        orders = [value.order for value in values if isinstance(value, Tensor)]
        order = next((order for order in orders if order != tuple(sorted(order))), orders[0])
        shape = [1] * len(order)
        for value in values:
            for axis, size in enumerate(value.shape):
                shape[axis] = size if shape[axis] == 1 else shape[axis]
        return [_short(self.ordered(value, order)) for value in values], tuple(shape), order

    def model(self, metadata: dict[str, str]) -> onnx.ModelProto:
        """Returns the graph as a model, checked.

        Args:
          metadata: of the model, text by name.
        """
        graph = onnx.helper.make_graph(
            self.nodes, "mljax", self.inputs, self.outputs, list(self._constants.values())
        )
        opset = onnx.helper.make_opsetid("", OPSET)
        # The version of the format that belongs to the operations, not the newest.
        version = onnx.helper.find_min_ir_version_for([opset])
        model = onnx.helper.make_model(
            graph, opset_imports=[opset], ir_version=version, producer_name="mljax"
        )
        onnx.helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def straight(shape: Shape) -> tuple[int, ...]:
    """Returns the order in which each axis is where it was traced."""
    return tuple(range(len(shape)))


def _short(x: str | np.ndarray) -> str | np.ndarray:
    """Returns a constant without leading axes of size 1; runtimes join `[c, 1, 1]` with a Conv."""
    if isinstance(x, str):
        return x
    shape = x.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    return x.reshape(shape)


def _described(name: str, shape: Shape, dtype: Any) -> onnx.ValueInfoProto:  # noqa: ANN401
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return onnx.helper.make_tensor_value_info(name, kind, sizes)


def inputs_of(equation: JaxprEqn) -> list[Any]:
    """Returns shape and type of the inputs of a traced operation."""
    return [variable.aval for variable in equation.invars]


def result_of(equation: JaxprEqn) -> Any:  # noqa: ANN401
    """Returns shape and type of the one output of a traced operation."""
    return equation.outvars[0].aval
