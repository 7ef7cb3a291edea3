"""KMCL's kernel losses against their formulas, at their limits, in any batch and on any device."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mljax.losses.kernel_mixture import kernel_contrastive_loss, reconstruction_loss

CONTRAST = ("features", "labels", "means", "variances")
B, D, K = 5, 6, 3
LABELS = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]])
PAIRS = {
    "anisotropic bhattacharyya": ((B, D, K), (B, D, K)),
    "anisotropic mahalanobis": ((B, D, K), (B, D, 1)),
    "anisotropic rbf": ((B, D, K), (B, 1, 1)),
    "isotropic bhattacharyya": ((B, 1, K), (B, 1, K)),
    "isotropic mahalanobis": ((B, 1, K), (B, D, 1)),
    "isotropic rbf": ((B, 1, K), (B, 1, 1)),
}


def _example(pair, *, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    mean_shape, variance_shape = PAIRS[pair]
    inputs = {
        "logits": rng.normal(size=(B, K)),
        "labels": LABELS,
        "features": rng.normal(size=(B, D)),
        "means": rng.normal(size=mean_shape),
        "variances": rng.uniform(1, 3, variance_shape),
    }
    return {name: jnp.asarray(value, dtype) for name, value in inputs.items()}


def _contrast(inputs, **options):
    return kernel_contrastive_loss(**{name: inputs[name] for name in CONTRAST}, **options)


def _contrast_by_formula(
    inputs, *, temperature=0.17, width_factor=True, determinant=True, jaccard_outside_log=False
):
    """The docstring's formula written out over `[b, b, d, k]`, analytic in means and variances."""
    isotropic = inputs["means"].shape[1] == inputs["variances"].shape[1] == 1
    means = np.broadcast_to(inputs["means"], (B, D, K))
    std = np.sqrt(np.broadcast_to(inputs["variances"], (B, D, K))) + 2.220446e-16**0.5
    total = std[:, None] ** 2 + std[None] ** 2
    distances = 0.25 * (means[:, None] - means[None]) ** 2 / total
    if determinant:
        distances = distances + 0.5 * np.log(total / (2 * std[:, None] * std[None]))
    distances = distances.sum(2) * (D if width_factor and not isotropic else 1)
    weights = np.exp(np.exp(-distances) / temperature) * (1 - np.eye(B))[:, :, None]
    both = LABELS[:, None] * LABELS[None]
    jaccard = both.sum(2) / np.maximum(np.maximum(LABELS[:, None], LABELS[None]).sum(2), 1)
    jaccard = (jaccard * (1 - np.eye(B)))[:, :, None]
    inside, outside = (1, jaccard) if jaccard_outside_log else (jaccard, 1)
    logs = outside * np.log(inside * weights / weights.sum(1, keepdims=True) + 1e-7)
    matches = np.maximum((jaccard > 0).sum((1, 2)), 1)
    return -(logs * both * (jaccard > 0)).sum((1, 2)) / matches


CODE = {}
TRUE_COEFFICIENT = {"width_factor": False, "temperature": 0.5}
OUTSIDE = {"width_factor": False, "determinant": False, "jaccard_outside_log": True}


@pytest.mark.parametrize(
    ("pair", "options"),
    [(pair, CODE) for pair in PAIRS]
    + [("anisotropic bhattacharyya", TRUE_COEFFICIENT), ("isotropic mahalanobis", TRUE_COEFFICIENT)]
    + [("anisotropic rbf", OUTSIDE), ("isotropic bhattacharyya", OUTSIDE)],
)
def test_contrast_and_its_slope_are_those_of_the_formula(pair, options):
    inputs, direction = _example(pair), _example(pair, seed=1)
    # Near kernels: far ones have no slope.
    near = {
        "means": 0.2 * np.asarray(inputs["means"], float),
        "variances": 1 + 0.1 * np.asarray(inputs["variances"], float),
    }
    # The slope along an imaginary step is exact, without cancellation.
    step = {name: near[name] + 1e-30j * np.asarray(direction[name], float) for name in near}
    expected = _contrast_by_formula(step, **options)

    with jax.enable_x64(True):
        given = {name: jnp.asarray(value) for name, value in near.items()}

        def loss(given):
            return _contrast(inputs | given, **options)

        @jax.jit
        def value_and_slopes(given):
            value, pullback = jax.vjp(loss, given)
            gradients = jax.vmap(pullback)(jnp.eye(B))[0]
            along = {name: jnp.asarray(direction[name], float)[None] for name in near}
            return value, sum(
                jnp.sum(gradients[name] * along[name], axis=(1, 2, 3)) for name in near
            )

        value, slopes = value_and_slopes(given)
    np.testing.assert_allclose(value, expected.real, rtol=1e-12)
    np.testing.assert_allclose(slopes, 1e30 * expected.imag, rtol=1e-9, atol=1e-12)


@partial(jax.jit, static_argnames=("width_factor", "temperature", "floors"))
def _both_losses(inputs, floors=(1.17549e-38, 1e-7), **options):
    reconstruction = {name: inputs[name] for name in inputs if name != "valid"}
    contrast = {name: inputs[name] for name in inputs if name != "logits"}
    return {
        "reconstruction": reconstruction_loss(
            **reconstruction, kernel_floor=floors[0], eps=floors[1]
        ),
        "contrast": kernel_contrastive_loss(**contrast, **options),
    }


@jax.jit
def _both_gradients(inputs, labels):
    def total(inputs):
        return sum(jnp.sum(loss) for loss in _both_losses(inputs | {"labels": labels}).values())

    return jax.grad(total)({name: inputs[name] for name in inputs if name != "labels"})


def _assert_equal(actual, expected, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), actual, expected)


@pytest.mark.parametrize("pair", ["anisotropic mahalanobis", "anisotropic rbf", "isotropic rbf"])
def test_tied_variances_equal_the_same_variances_written_out(pair):
    inputs = _example(pair)
    own = PAIRS[f"{pair.split()[0]} bhattacharyya"][1]
    written_out = inputs | {"variances": jnp.broadcast_to(inputs["variances"], own)}
    _assert_equal(_both_losses(inputs), _both_losses(written_out), rtol=1e-6, atol=1e-6)


def test_isotropic_kernels_equal_anisotropic_ones_with_equal_dimensions():
    inputs = _example("isotropic bhattacharyya")
    repeated = inputs | {name: jnp.repeat(inputs[name], D, 1) for name in ("means", "variances")}
    _assert_equal(_both_losses(inputs), _both_losses(repeated, width_factor=False), rtol=1e-5)


@pytest.mark.parametrize("pair", ["anisotropic bhattacharyya", "isotropic mahalanobis"])
def test_losses_follow_the_images_when_the_batch_is_permuted(pair):
    inputs = _example(pair)
    order = np.array([3, 1, 4, 0, 2])
    expected = {name: loss[order] for name, loss in _both_losses(inputs).items()}
    permuted = {name: value[order] for name, value in inputs.items()}
    _assert_equal(_both_losses(permuted), expected, rtol=1e-5)


def test_contrast_is_zero_for_a_batch_without_matches():
    inputs = _example("anisotropic bhattacharyya")
    inputs["labels"] = jnp.eye(B, K)
    np.testing.assert_array_equal(_both_losses(inputs)["contrast"], 0)


def test_contrast_of_a_perfect_pair_is_zero_when_jaccard_is_one():
    inputs = {name: value[:2] for name, value in _example("anisotropic bhattacharyya").items()}
    inputs["labels"] = jnp.ones((2, K))
    np.testing.assert_allclose(_both_losses(inputs)["contrast"], 0, atol=1e-6)


@pytest.mark.parametrize("pair", ["anisotropic bhattacharyya", "isotropic mahalanobis"])
def test_invalid_rows_are_neither_anchors_nor_contrasts(pair):
    inputs = _example(pair)
    inputs["valid"] = jnp.array([True, True, False, True, False])
    kept = {name: value[inputs["valid"]] for name, value in inputs.items()}
    losses = _both_losses(inputs)["contrast"]
    np.testing.assert_allclose(losses[inputs["valid"]], _both_losses(kept)["contrast"], rtol=1e-5)
    np.testing.assert_array_equal(losses[~inputs["valid"]], 0)


def test_unannotated_classes_leave_the_reconstruction_and_match_no_image():
    inputs = _example("anisotropic bhattacharyya")
    hidden = inputs | {"labels": inputs["labels"].at[0, 1].set(-1)}
    losses, visible = _both_losses(hidden), _both_losses(inputs)
    without = {name: inputs[name][..., np.array([0, 2])] for name in inputs if name != "features"}
    without["features"] = inputs["features"]
    np.testing.assert_allclose(
        losses["reconstruction"][0], _both_losses(without)["reconstruction"][0], rtol=1e-6
    )
    np.testing.assert_array_equal(losses["contrast"], visible["contrast"])


def test_reconstruction_of_a_row_without_annotation_costs_nothing():
    inputs = _example("anisotropic bhattacharyya")
    labels = inputs["labels"].at[0].set(-1)
    assert _both_losses(inputs | {"labels": labels})["reconstruction"][0] == 0
    for gradient in jax.tree.leaves(_both_gradients(inputs, labels)):
        assert jnp.isfinite(gradient).all()


def test_reconstruction_of_a_row_without_present_class_is_constant():
    inputs = _example("anisotropic bhattacharyya")
    loss = _both_losses(inputs)["reconstruction"]
    np.testing.assert_allclose(loss[2], -np.log(1e-7), rtol=1e-6)
    np.testing.assert_array_equal(_both_gradients(inputs, inputs["labels"])["logits"][2], 0)


EXTREMES = {
    "logits of 40": {"logits": 40.0},
    "logits of -40": {"logits": -40.0},
    "distant features": {"features": 1e6},
    "distant means": {"means": 1e15},
    "means whose square overflows": {"means": 1e25},
    "features whose square overflows": {"features": 1e25},
    "huge variances": {"variances": 1e30},
    "tiny variances": {"variances": 1e-30},
    "all kernels far and logits low": {"logits": -40.0, "features": 1e4},
}


@pytest.mark.parametrize("pair", ["anisotropic bhattacharyya", "isotropic bhattacharyya"])
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("spread", ["every row", "one row"])
def test_losses_and_gradients_are_finite_at_extremes(pair, extreme, spread):
    inputs = _example(pair)
    for name, value in EXTREMES[extreme].items():
        rows = jnp.arange(B if spread == "every row" else 1)
        # Not all alike, so that differences between images are extreme as well.
        steps = jnp.linspace(0.5, 1, inputs[name][rows].size).reshape(inputs[name][rows].shape)
        inputs[name] = inputs[name].at[rows].set(value * steps)
    for loss in _both_losses(inputs).values():
        assert jnp.isfinite(loss).all()
    for gradient in jax.tree.leaves(_both_gradients(inputs, inputs["labels"])):
        assert jnp.isfinite(gradient).all()


def test_contrast_is_finite_for_a_cold_temperature():
    inputs = _example("anisotropic bhattacharyya")
    assert jnp.isfinite(_both_losses(inputs, temperature=1e-3)["contrast"]).all()


def test_lifted_floors_give_distant_kernels_a_gradient():
    inputs = _example("isotropic bhattacharyya")
    inputs |= {"features": jnp.full((B, D), 30.0), "labels": jnp.eye(B, K)}

    def total(features, **options):
        losses = _both_losses(inputs | {"features": features}, **options)
        return jnp.sum(losses["reconstruction"])

    np.testing.assert_array_equal(jax.grad(total)(inputs["features"]), 0)
    lifted = jax.grad(partial(total, floors=(0.0, 1e-300)))(inputs["features"])
    assert jnp.abs(lifted).max() > 1


@pytest.mark.slow
def test_compiled_losses_equal_eager_ones():
    inputs = _example("isotropic rbf")
    with jax.disable_jit():
        eager = _both_losses(inputs)
    _assert_equal(_both_losses(inputs), eager, rtol=1e-6)


def test_bfloat16_inputs_give_float32_losses():
    losses = _both_losses(_example("anisotropic bhattacharyya", dtype=jnp.bfloat16))
    assert {loss.dtype for loss in losses.values()} == {jnp.dtype("float32")}


@settings(max_examples=8, deadline=None)
@given(chunk_size=st.integers(2, 20), seed=st.integers(0, 9))
def test_chunk_size_changes_nothing(chunk_size, seed):
    @partial(jax.jit, static_argnums=1)
    def value_and_gradient(kernels, chunk_size):
        def loss(kernels):
            return jnp.sum(_contrast(inputs | kernels, chunk_size=chunk_size))

        return jax.value_and_grad(loss)(kernels)

    inputs = _example("anisotropic bhattacharyya", seed=seed)
    kernels = {"means": 0.2 * inputs["means"], "variances": 1 + 0.1 * inputs["variances"]}
    _assert_equal(
        value_and_gradient(kernels, chunk_size),
        value_and_gradient(kernels, 1),
        rtol=1e-5,
        atol=1e-5,
    )


def test_no_array_has_all_four_axes():
    b, d, k = 32, 64, 8
    shape = jax.ShapeDtypeStruct((b, d, k), jnp.float32)
    flat = jax.ShapeDtypeStruct((b, d), jnp.float32), jax.ShapeDtypeStruct((b, k), jnp.float32)

    def loss(features, labels, means, variances):
        return jnp.sum(kernel_contrastive_loss(features, labels, means, variances))

    program = jax.jit(jax.value_and_grad(loss, (2, 3))).lower(*flat, shape, shape)
    assert program.compile().memory_analysis().temp_size_in_bytes < 4 * b * b * d * k


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from mljax.losses.kernel_mixture import kernel_contrastive_loss, reconstruction_loss

rng = np.random.default_rng(0)
b, d, k = 16, 6, 3
arrays = {
    "logits": rng.normal(size=(b, k)),
    "labels": rng.integers(0, 2, (b, k)),
    "features": rng.normal(size=(b, d)),
    "means": 0.2 * rng.normal(size=(b, d, k)),
    "variances": rng.uniform(1, 1.2, (b, d, k)),
}
arrays = {name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()}

@jax.jit
def value_and_gradients(arrays):
    def loss(arrays):
        contrast = {name: arrays[name] for name in arrays if name != "logits"}
        return jnp.mean(reconstruction_loss(**arrays) + kernel_contrastive_loss(**contrast))
    return jax.value_and_grad(loss)(arrays)

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
sharded = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec("data")))
one, eight = value_and_gradients(arrays), value_and_gradients(sharded)
assert len(eight[1]["means"].sharding.device_set) == 8
jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), one, eight)
"""


def test_eight_devices_see_the_global_batch():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", SHARDED], env=environment, check=True, timeout=300)
