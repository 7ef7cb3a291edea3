#!/usr/bin/env bash
# jax 0.10.2 with jax-cuda12-plugin and -pjrt 0.10.2, nvidia-cuda-nvcc-cu12 12.9.86: a program for an
# H100 that is not there.
#
# Guessed: to compile for a GPU takes its driver, or at least cuDNN, since the compiler asks them
# about the device and its routines. Seen: on a machine without both,
# `topologies.get_topology_desc(platform="cuda", target_config=...)`, whose text describes an H100,
# gives devices that a program compiles for, through all of XLA's passes: a convolution in bfloat16
# becomes a call of cuDNN with a fusion behind it, and the plan of memory can be read. These wheels
# are enough. What is missing is the choice between routines, which takes trials.
#
# Run by hand; fails if the behavior changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 \
    jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12==12.9.86
"$work/venv/bin/pip" list 2>/dev/null | grep -i cudnn && { echo "cuDNN is there"; exit 1; }
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import re

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  l2_cache_size: 52428800 memory_bandwidth: 3350000000000 device_memory_size: 84978434048
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 8 }
"""


def convolve(images, kernel):
    maps = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(maps)


described = {"target_config": H100, "topology": "1x1x1"}
devices = topologies.get_topology_desc(platform="cuda", **described).devices
whole = NamedSharding(Mesh(devices, ("one",)), PartitionSpec())
shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((8, 32, 32, 64), (3, 3, 64, 64))]
lowered = jax.jit(convolve, in_shardings=whole, out_shardings=whole).lower(*shapes)
compiled = lowered.compile()
calls = re.findall(r'custom_call_target="(\S+)"', compiled.as_text())
print(devices, calls, compiled.memory_analysis().temp_size_in_bytes)
assert calls == ["__cudnn$convForward"], "the program is another one"
assert "fusion(" in compiled.as_text()
PYTHON
echo "as described: a program for an H100, without an H100, its driver or cuDNN"
