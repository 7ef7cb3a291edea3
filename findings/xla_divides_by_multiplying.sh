#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2, CPU), numpy 2.4.6: pixels divided by 255 in JAX are not those of numpy.
#
# Guessed: one division of float32 is rounded by IEEE 754, so `x / 255` of the 256 bytes is equal in
# numpy and in JAX, at least outside of `jit`, where nothing is fused. Seen: XLA replaces a division
# by a scalar with a multiplication by its reciprocal, which is rounded itself: 126 of the 256
# quotients differ in the last bit, under `jit` and outside of it, be the scalar a constant or an
# argument. By an array of divisors it divides: then all 256 are equal.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

pixels = np.arange(256, dtype=np.uint8).astype(np.float32)
expected = pixels / np.float32(255)
found = {
    "jit": jax.jit(lambda x: x / 255)(pixels),
    "outside of jit": jnp.asarray(pixels) / 255,
    "a scalar argument": jax.jit(jnp.divide)(pixels, np.float32(255)),
    "an array of divisors": jax.jit(jnp.divide)(pixels, np.full(256, 255, np.float32)),
}
differ = {name: int((np.asarray(quotients) != expected).sum()) for name, quotients in found.items()}
print(differ)
assert list(differ.values()) == [126, 126, 126, 0], "XLA divides otherwise than described"
PYTHON
echo "as described: a scalar divisor becomes its reciprocal"
