#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2, CPU), numpy 2.4.6: `jnp.asarray` of numpy's arrays compiles.
#
# Guessed: `jnp.asarray(array)` copies numpy's array to the device, as `jax.device_put(array)` does;
# there is nothing to compute, so nothing is compiled. Seen: outside of any trace it compiles an
# identity, `jit(stage)`, for each shape: eight programs for eight shapes, where `jax.device_put`
# compiles none. A network whose arrays come from numpy thus waits for a program for each shape.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import logging

import jax
import jax.numpy as jnp
import numpy as np

compiled = []
handler = logging.Handler()
handler.emit = lambda record: compiled.append(record.getMessage())
logging.getLogger("jax._src.interpreters.pxla").addHandler(handler)
arrays = [np.ones(size, np.float32) for size in range(1, 9)]
found = {}
with jax.log_compiles():
    for put in (jax.device_put, jnp.asarray):
        compiled.clear()
        for array in arrays:
            put(array)
        found[put.__name__] = sum(message.startswith("Compiling") for message in compiled)
print(found)
assert found == {"device_put": 0, "asarray": 8}, "jax compiles otherwise than described"
PYTHON
echo "as described: jnp.asarray compiles a program for each shape"
