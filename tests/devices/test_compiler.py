"""Options of the compiler: results stay equal, and what is unknown is left out."""

import jax
import jax.numpy as jnp
import numpy as np

from mljax.devices import compiler
from mljax.devices.mesh import make_mesh


def test_convolutions_and_their_gradients_are_equal_under_the_options():
    options = compiler.compiler_options(make_mesh())
    x = jax.random.normal(jax.random.key(0), (4, 9, 9, 8))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 8, 16))

    def loss(x, kernel):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.square(y).mean()

    plain, chosen = (
        jax.jit(jax.grad(loss, (0, 1)), compiler_options=given)(x, kernel)
        for given in (None, options)
    )
    for ours, theirs in zip(chosen, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_option_that_this_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "_ON_CPU", {"xla_no_such_option": "1"})
    assert compiler.compiler_options(make_mesh()) == {}
