"""Unit vectors and cosines against the published layer, and at the edges of their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mljax.layers.dense import CosineLinear, clip_cosine, cosines, normalize
from tests import golden

CASES = golden.names("aam_heads", "angle_linear")


def _kernel(case):
    ((name, (shape, kind)),) = golden.cases("aam_heads")[case]["params"].items()
    kernel = golden.fill(name, shape, kind)
    if case == "angle_linear3":
        x = golden.arrays("aam_heads", case)["x"]
        kernel[:, 0], kernel[:, 1] = 3 * x[0], -x[1]
    return kernel


@jax.jit
def _outputs_and_gradients(x, kernel, cotangent):
    outputs, pull = jax.vjp(cosines, x, kernel)
    return outputs, *pull(cotangent)


def _summary(x, stored):
    if x.shape == stored.shape:
        return x
    return np.concatenate([[x.mean(), x.std(), np.abs(x).max()], x.ravel()[:64]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_cosines_and_gradients_equal_reference(case, dtype):
    row, expected = golden.cases("aam_heads")[case], golden.arrays("aam_heads", case)
    cotangent = golden.fill_input(*row["inputs"]["cotangent"]["fill"])
    suffix, tolerance = ("_f64", 1e-13) if dtype == "float64" else ("", 1e-5)
    with jax.enable_x64(dtype == "float64"):
        given = [jnp.asarray(a, dtype) for a in (expected["x"], _kernel(case), cotangent)]
        found = map(np.asarray, _outputs_and_gradients(*given))
    for name, ours in zip(("y", "grad_x", "grad_w"), found, strict=True):
        theirs = expected[name + suffix]
        ours = _summary(ours, theirs)
        # Zeros pass their gradient times 1e12.
        np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance, err_msg=name)


def test_the_gradient_passes_inside_and_at_both_ends_alone():
    x = jnp.array([-1.5, -1.0, 0.3, 1.0, 1.5])
    np.testing.assert_array_equal(clip_cosine(x), [-1, -1, jnp.float32(0.3), 1, 1])
    np.testing.assert_array_equal(jax.grad(lambda x: clip_cosine(x).sum())(x), [0, 1, 1, 1, 0])


def test_zeros_stay_zeros_with_a_finite_gradient():
    x = jnp.zeros((2, 3))
    np.testing.assert_array_equal(normalize(x), 0)
    gradient = jax.grad(lambda x: normalize(x)[0, 1])(x)
    np.testing.assert_allclose(gradient, [[0, 1e12, 0], [0, 0, 0]], rtol=1e-6)


def test_weight_vectors_start_with_length_one():
    kernel = CosineLinear(30, 4, rngs=nnx.Rngs(0)).kernel[...]
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-6)


def test_cosines_of_half_precision_are_computed_in_float32():
    x = jnp.asarray(golden.fill_input("x", (2, 64), -1, 1), jnp.bfloat16)
    kernel = jnp.asarray(golden.fill_input("kernel", (64, 3), -1, 1))
    found = cosines(x, kernel)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, cosines(x.astype("float32"), kernel), atol=1e-6)
