"""Bytes become the floats that the host makes of them, on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.config.schema import Preprocessing
from mljax.data.images import normalize
from mljax.models.inference import make_apply
from mljax.models.pixels import normalize_pixels
from tests import networks

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("channels", [{}, IMAGENET, {"mean": (0.5, 0.5, 0.5)}])
def test_every_byte_is_to_the_last_bit_what_the_host_makes_of_it(channels):
    preprocessing = Preprocessing(image_size=16, **channels)
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    found = jax.jit(lambda images: normalize_pixels(images, preprocessing))(ramp)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, normalize(ramp, preprocessing))


def test_rows_that_are_not_valid_are_zeros_whatever_the_mean():
    images, valid = jnp.full((3, 2, 2, 3), 7, np.uint8), jnp.array([True, False, True])
    found = normalize_pixels(images, Preprocessing(image_size=2, **IMAGENET), valid)
    np.testing.assert_array_equal(found.any((1, 2, 3)), valid)


def test_floats_stay_as_they_are_and_bytes_need_preprocessing():
    floats = jnp.full((1, 2, 2, 3), np.nan, np.float32)
    assert normalize_pixels(floats, None, jnp.array([False])) is floats
    with pytest.raises(ValueError, match="uint8 must be normalized: give preprocessing"):
        normalize_pixels(floats.astype(np.uint8), None)


def test_a_network_gives_the_same_bits_for_bytes_and_for_their_floats():
    preprocessing = Preprocessing(image_size=4, **IMAGENET)
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
    apply = make_apply(networks.pixel_model(10), preprocessing=preprocessing)
    found, expected = apply(images), apply(normalize(images, preprocessing))
    np.testing.assert_array_equal(found["logits"], expected["logits"])
