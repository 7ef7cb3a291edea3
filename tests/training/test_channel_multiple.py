"""Channels that are padded inside a step: nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.config import loss, part
from mljax.models.arrays import crop_channels, pad_channels, split_model
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from tests import networks

# Widths 10 (padded to 16), 40, and 20 (to 24), which the head reads; attention, blur and shortcuts.
BACKBONE = part(
    "tresnet_m", layers=(1, 1, 0, 0), width=10, bottleneck_stages=(True, False, False, False)
)


@pytest.fixture(scope="module")
def found():
    """Returns, with padded channels and without, loss, statistics and gradients, and the program.

    In float64, so that what differs is no rounding.
    """
    model = networks.model(backbone=BACKBONE)
    _, *arrays = split_model(model)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        # No array may hide an error by being 0.
        params, statistics = (
            {path: jnp.asarray(a + rng.uniform(0.1, 0.3, a.shape), float) for path, a in x.items()}
            for x in arrays
        )
        batch = {
            "images": rng.uniform(size=(4, 32, 32, 3)),
            "labels": rng.integers(-1, 2, (4, 10)).astype(float),
            "valid": np.ones(4, bool),
        }
        terms = make_terms((loss("asymmetric_loss"),), ())
        results = {}
        for multiple in (1, 8):
            gradients = jax.jit(make_gradients(model, terms, channel_multiple=multiple))
            given = params, {"statistics": statistics, "trackers": {}}, batch, jax.random.key(0)
            program = gradients.lower(*given)
            results[multiple] = program.as_text(), program.compile()(*given)
    return results


@pytest.mark.slow
def test_loss_statistics_and_gradients_are_those_without_padding(found):
    (_, ((narrow, (before, _)), expected)), (_, ((wide, (after, _)), grads)) = found.values()
    np.testing.assert_allclose(wide, narrow, rtol=1e-12)
    for path, array in before["statistics"].items():
        np.testing.assert_allclose(after["statistics"][path], array, rtol=1e-10, err_msg=path)
    for path, array in expected.items():
        assert grads[path].shape == array.shape
        tolerance = 1e-10 * np.abs(array).max()
        np.testing.assert_allclose(grads[path], array, atol=tolerance, err_msg=path)


@pytest.mark.slow
def test_the_convolutions_of_a_step_have_the_padded_channels(found):
    (narrow, _), (wide, _) = found.values()
    assert "3x3x48x10xf64" in narrow and "3x3x16x24xf64" not in narrow
    assert "3x3x48x16xf64" in wide and "3x3x24x24xf64" in wide
    assert not [line for line in wide.splitlines() if "convolution(" in line and "x10xf64" in line]


def test_cropping_takes_back_the_padding():
    arrays = split_model(networks.model(backbone=BACKBONE))[1]
    padded = jax.eval_shape(lambda given: pad_channels(given, 8), arrays)
    assert padded["backbone.stages.0.0.conv1.conv.kernel"].shape == (1, 1, 16, 16)
    assert padded["backbone.stem.conv.kernel"].shape == (3, 3, 48, 16)
    assert padded["head.linear.kernel"].shape == arrays["head.linear.kernel"].shape
    cropped = jax.jit(lambda given: crop_channels(pad_channels(given, 8), given))(arrays)
    jax.tree.map(np.testing.assert_array_equal, cropped, arrays)
    assert pad_channels(arrays, 1) == arrays
