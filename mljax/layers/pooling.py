"""Ways to make a feature map smaller. Maps are NHWC."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mljax.layers.init import at_least_float32


def space_to_depth(x: Float[Array, "b h w c"], block: int = 4) -> Float[Array, "b i j d"]:
    """Moves each `block` x `block` square of pixels into the channels, row first, then column.

    Raises:
      ValueError: for a height or width that `block` does not divide.
    """
    b, h, w, c = x.shape
    if h % block or w % block:
        raise ValueError(
            f"images: height and width must be multiples of {block}, got {h} x {w}; resize them"
        )
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, block * block * c)


def blur_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Halves height and width (rounded up) behind the filter [1, 2, 1] x [1, 2, 1] / 16.

    The border is reflected. Strided slices and additions replace the depthwise convolution, which
    XLA runs slowly on the CPU.

    Source: Zhang, Making Convolutional Networks Shift-Invariant Again,
    https://arxiv.org/abs/1904.11486; `AADownsample` of Alibaba-MIIL/TResNet.

    Raises:
      ValueError: for a map of height or width 1, which has nothing to reflect.
    """
    if min(x.shape[1:3]) < 2:
        raise ValueError(
            f"blur_pool: the map must be at least 2 x 2, got {x.shape[1]} x {x.shape[2]}; "
            "use larger images (a TResNet needs 20 pixels a side)"
        )
    return _blur_axis(_blur_axis(x, 1), 2) / 16


def _blur_axis(x: Float[Array, "b h w c"], axis: int) -> Float[Array, "b i j c"]:
    """Returns `x[i - 1] + 2 x[i] + x[i + 1]` for each even i, where the border is reflected.

    The reflected row is added to a map padded with zeros: a pad is part of a sum on GPUs, while
    rows joined to a map are a copy of it.
    """
    even = lax.slice_in_dim(x, 0, None, 2, axis)
    odd = lax.slice_in_dim(x, 1, None, 2, axis)
    places, between = even.shape[axis], odd.shape[axis]

    def put(first: int, last: int, at: int) -> Float[Array, "b i j c"]:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (at, places - at - (last - first))
        return jnp.pad(lax.slice_in_dim(odd, first, last, axis=axis), widths)

    before = put(0, 1, at=0) + put(0, places - 1, at=1)
    after = put(0, between, at=0)
    if between < places:
        after += put(between - 1, between, at=between)
    return before + 2 * even + after


def ceil_average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """Averages 2 x 2 squares; an odd last row or column is averaged over the pixels that exist."""
    for axis in (1, 2):
        if x.shape[axis] % 2:
            last = lax.slice_in_dim(x, -1, None, axis=axis)
            x = jnp.concatenate((x, last), axis)
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Returns the mean over space, in float32 at least."""
    return at_least_float32(x).mean((1, 2))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Returns the maximum over space, in float32 at least; see `first_max`."""
    return first_max(at_least_float32(x).reshape(x.shape[0], -1, x.shape[-1]), 1)


def average_plus_max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Returns the mean over space plus the maximum, in float32 at least."""
    return average_pool(x) + max_pool(x)


def first_max(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Returns the maximum along an axis, whose gradient goes to the first one alone.

    As in torch; `jnp.max` splits it among equals, as all pixels that a rectifier sets to 0.
    """
    index = jnp.expand_dims(x.argmax(axis), axis)
    return jnp.take_along_axis(x, index, axis).squeeze(axis)
