"""Images as networks read them, from the bytes that travel to the devices."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from mljax.config.schema import Preprocessing
from mljax.data.images import normalize


def normalize_pixels(
    images: Shaped[Array, "b h w 3"],
    preprocessing: Preprocessing | None,
    valid: Bool[Array, " b"] | None = None,
) -> Float[Array, "b h w 3"]:
    """Returns images of bytes in float32, normalized; images of floats stay as they are.

    The numbers are those of `mljax.data.images.normalize` to the last bit, because they are looked
    up in its table of the 256 bytes. A compiler would divide by multiplying, which changes the last
    bit of half of them, and takes as long.

    Args:
      images: values in [0, 255] of uint8, or floats.
      preprocessing: has the mean and the standard deviation of each channel.
      valid: where not, images of bytes become zeros, whatever the mean is; None is everywhere.

    Raises:
      ValueError: for bytes without preprocessing.
    """
    if images.dtype != np.uint8:
        return images
    if preprocessing is None:
        raise ValueError("images of uint8 must be normalized: give preprocessing, or floats")
    bytes_ = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    table = jnp.asarray(normalize(bytes_[:, None], preprocessing).reshape(-1))
    # The table has the three channels of a byte side by side.
    places = 3 * images.astype(jnp.int32) + jnp.arange(3, dtype=jnp.int32).reshape(1, 1, 1, 3)
    floats = table.at[places].get(mode="promise_in_bounds")
    return floats if valid is None else jnp.where(valid[:, None, None, None], floats, 0)
