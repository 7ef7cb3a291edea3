#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2) on CPUs: the gradient of equal convolutions under `jax.lax.scan` takes
# tens of times as long as that of the same convolutions written one after the other.
#
# Guessed: a scan over the stacked filters of nine residual 3x3 convolutions compiles several times
# as fast as nine of them, and runs as fast, since each is large enough to fill the cores. Seen: it
# compiles no faster (1.0 s of CPU time or more), and value and gradient take 12.0 s in place of 0.25
# (8 maps of 28 x 28 x 64, one busy core). The values are equal.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import time

import jax
import jax.numpy as jnp
import numpy as np

filters = np.random.default_rng(0).normal(0, 0.02, (9, 3, 3, 64, 64)).astype(np.float32)
maps = np.ones((8, 28, 28, 64), np.float32)


def block(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    return x + jax.nn.relu(y), None


def unrolled(kernels, x):
    for kernel in kernels:
        x, _ = block(x, kernel)
    return jnp.square(x).mean()


def scanned(kernels, x):
    return jnp.square(jax.lax.scan(block, x, kernels)[0]).mean()


seconds, values = {}, {}
for form in (unrolled, scanned):
    began = time.process_time()
    program = jax.jit(jax.value_and_grad(form)).lower(filters, maps).compile()
    compilation = time.process_time() - began
    values[form] = float(jax.block_until_ready(program(filters, maps))[0])
    began = time.process_time()
    jax.block_until_ready(program(filters, maps))
    seconds[form] = time.process_time() - began
    print(f"{form.__name__}: {compilation:.1f} s to compile, {seconds[form]:.2f} s to run")
np.testing.assert_allclose(values[scanned], values[unrolled], rtol=1e-5)
assert seconds[scanned] > 8 * seconds[unrolled], "a scan is no longer so slow"
PYTHON
echo "as described: convolutions are slow in a loop"
