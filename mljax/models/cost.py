"""What a network costs, counted from its jaxpr; no weights are allocated and nothing is compiled.

The counting rules are those of most papers and of timm's tables: one multiply-add for each product
in a convolution or a matrix product (papers often call a billion of these a GFLOP; as separate
operations they are two), taps on the padding included, and nothing for norms, activations, pooling
and sums. Activations are the outputs of the same operations, as in Radosavovic et al., Designing
Network Design Spaces, https://arxiv.org/abs/2003.13678, section 3.2.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.core import ShapedArray
from jax.extend import core

from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier
from mljax.models.folding import fold


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one image costs.

    Attributes:
      parameters: trained values.
      multiply_adds: products in convolutions and matrix products.
      activations: values that convolutions and matrix products give.
      activation_bytes: these in the precision of the computation. Training holds at least as much
        for every image of the batch until the backward pass; the copies that norms and activation
        functions may need come on top.
    """

    parameters: int
    multiply_adds: int
    activations: int
    activation_bytes: int


def count_cost(model: Classifier, height: int, width: int) -> Cost:
    """Returns the cost of a forward pass in eval mode, without what no image changes; see `fold`.

    Args:
      model: may be abstract, see `mljax.models.classifier.abstract_model`.
      height: of the image, in pixels.
      width: likewise.

    Raises:
      ValueError: if the network cannot read images of that size.
    """
    parameters = split_model(model)[1].values()
    graph, params, statistics = split_model(nnx.eval_shape(fold, model))
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)

    def forward(params: Any, statistics: Any, images: Any) -> Any:  # noqa: ANN401
        return merge_model(graph, params, statistics)(images)

    jaxpr = jax.make_jaxpr(forward)(params, statistics, images).jaxpr
    multiply_adds, activations, size = _count(jaxpr)
    return Cost(
        parameters=sum(math.prod(array.shape) for array in parameters),
        multiply_adds=multiply_adds,
        activations=activations,
        activation_bytes=size,
    )


_Counts = tuple[int, int, int]


def _count(jaxpr: core.Jaxpr) -> _Counts:
    """Returns multiply-adds, and number and bytes of the values that they make."""
    total = (0, 0, 0)
    for equation in jaxpr.eqns:
        total = _add(total, _count_equation(equation))
    return total


def _count_equation(equation: core.JaxprEqn) -> _Counts:
    name, params = equation.primitive.name, equation.params
    if name in ("dot_general", "conv_general_dilated"):
        left, right, out = (v.aval for v in (*equation.invars, *equation.outvars))
        assert isinstance(left, ShapedArray) and isinstance(right, ShapedArray)
        assert isinstance(out, ShapedArray)
        if name == "dot_general":
            contracted, _ = params["dimension_numbers"][0]
            products = math.prod(left.shape[axis] for axis in contracted)
        else:
            outputs = right.shape[params["dimension_numbers"].rhs_spec[0]]
            products = math.prod(right.shape) // outputs
        return out.size * products, out.size, out.size * out.dtype.itemsize
    inner = [_count(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        # One branch runs. Of an operation in a form for each platform, one names its products.
        return max(inner)
    times = params["length"] if name == "scan" else 1
    total = (0, 0, 0)
    for counts in inner:
        total = _add(total, counts)
    return total[0] * times, total[1] * times, total[2] * times


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs that an equation calls."""
    for value in params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, core.ClosedJaxpr):
                yield entry.jaxpr
            elif isinstance(entry, core.Jaxpr):
                yield entry


def _add(a: _Counts, b: _Counts) -> _Counts:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
