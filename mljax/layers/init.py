"""Initializers, and the precision that sums are computed in."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def _on_host(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> nnx.Initializer:
    """Returns an initializer whose numbers are drawn by numpy.

    XLA would compile a random generator for every array: most of a minute for a TResNet, whose
    numbers numpy draws in a second.
    """

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        def call(seed: Array) -> np.ndarray:
            return draw(np.random.default_rng(np.asarray(seed)), shape).astype(dtype, copy=False)

        seed = jax.random.key_data(key)
        if not isinstance(seed, Tracer):
            # Outside of a trace too, each callback would be a program of its own to compile;
            # `jnp.asarray` has one for each shape.
            return jax.device_put(call(seed))
        return jax.pure_callback(call, jax.ShapeDtypeStruct(shape, dtype), seed)

    return init


def normal_init(std: float) -> nnx.Initializer:
    """Returns the initializer N(0, std)."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        numbers = rng.standard_normal(shape, np.float32)
        numbers *= np.float32(std)
        return numbers

    return _on_host(draw)


def kaiming_fan_out(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """Initializes a kernel `[..., in, out]` with N(0, sqrt(2 / fan_out))."""
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return normal_init((2 / fan_out) ** 0.5)(key, shape, dtype)


def uniform_init(bound: float) -> nnx.Initializer:
    """Returns the initializer that is uniform in +-bound."""
    return _on_host(lambda rng, shape: rng.uniform(-bound, bound, shape))


def torch_uniform_init(fan_in: int) -> nnx.Initializer:
    """Returns torch's default initializer of a linear layer: uniform in +-1/sqrt(fan_in)."""
    return uniform_init(fan_in**-0.5)


def xavier_uniform(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """Initializes a kernel `[in, out]` uniformly in +-sqrt(6 / (in + out)), as Xavier's is."""
    return uniform_init((6 / (shape[0] + shape[1])) ** 0.5)(key, shape, dtype)


def filled(shape: tuple[int, ...], value: float) -> Float[Array, "..."]:
    """Returns an array of one value.

    It comes from the host: XLA would compile a program for each shape. Its dtype is a strong one: a
    weak one would become strong in the first step, and the next would be compiled anew.
    """
    return jax.device_put(np.full(shape, value, float))


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `x` in float32, or in float64 if it is that already."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def on_host(x: Float[Array | np.ndarray, "..."]) -> Float[Array | np.ndarray, "..."]:
    """Returns `x` as numpy's, or as it is in a trace.

    Outside of a trace, each operation on each shape would be a program of its own to compile.
    """
    return x if isinstance(x, Tracer) else np.asarray(x)
