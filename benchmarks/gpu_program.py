"""The program that XLA makes of a training step for an H100, on a machine without a GPU.

    pip install jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2 nvidia-cuda-nvcc-cu12
    python -m benchmarks.gpu_program [--networks tresnet_m tresnet_l] [--by-path]

jax's plugin for CUDA, which has the version of jax, compiles for a device that is described to it,
without a driver or cuDNN. Nothing runs: no routine is tried beside another, no time is measured.
Counted are the kernels of each kind, the bytes that they read and write, and the memory that the
program plans. The last column is the time that these bytes take at 3.35 TB/s, which NVIDIA states
as the bandwidth; what stays in the caches takes less, and arithmetic may take longer.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import jax
from jax.experimental import topologies
from rich.console import Console
from rich.table import Table

from benchmarks.abstract_step import lower_step
from benchmarks.device_time import array_bytes, computations, instruction_kinds, instructions
from mljax.devices.mesh import make_mesh

# Images in a step, and their side in pixels.
STEPS = {"tresnet_m": (128, 224), "tresnet_l": (32, 448), "efficientnet_v2_s": (32, 448)}
BYTES_PER_SECOND = 3.35e12

# What XLA asks about a device, here of an H100 SXM with 80 GB.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: 3350000000000
  device_memory_size: 84978434048
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 8 }
"""

_KERNELS = ("fusion", "custom-call", "copy", "dot", "convolution", "reduce", "concatenate", "sort")
_VIEWS = ("bitcast", "reshape")


@dataclass
class Share:
    """What the kernels of one kind are: how many, and the bytes that they read and write."""

    kernels: int = 0
    bytes: int = 0


def kernels(program: str) -> dict[str, Share]:
    """Returns the kernels of a compiled training step by kind (see `instruction_kinds`).

    Of an array that a kernel takes a slice of, the slice alone is counted.
    """
    bodies, kinds = computations(program), instruction_kinds(program, training=True)
    entry = next(body for body in bodies.values() if body.startswith("ENTRY "))
    shapes = {name: shape for name, shape, *_ in instructions(entry)}
    shares: dict[str, Share] = defaultdict(Share)
    for name, shape, operation, rest in instructions(entry):
        if operation not in _KERNELS:
            continue
        # The result of a routine has its scratch memory behind it.
        result = re.sub(r", u8\[\d+\]\{0\}\)$", ")", shape)
        operands = [shapes.get(operand, "") for operand in _operands(rest)]
        if called := re.search(r"calls=(%[\w.-]+)", rest):
            sliced = _sliced(bodies[called[1]])
            operands = [sliced.get(i, whole) for i, whole in enumerate(operands)]
        share = shares[kinds[name]]
        share.kernels += 1
        share.bytes += sum(map(array_bytes, [result, *operands]))
    return dict(shares)


def _sliced(body: str) -> dict[int, str]:
    """Returns the shapes of all slices of each parameter that is read by slices alone."""
    lines = list(instructions(body))
    source = {name: int(rest.split(")")[0]) for name, _, what, rest in lines if what == "parameter"}
    slices: Mapping[int, list[str]] = defaultdict(list)
    whole = set()
    for name, shape, operation, rest in lines:
        for operand in _operands(rest):
            if operand not in source:
                continue
            if operation in _VIEWS:
                source[name] = source[operand]
            elif operation in ("slice", "dynamic-slice"):
                slices[source[operand]].append(shape)
            else:
                whole.add(source[operand])
    return {index: " ".join(found) for index, found in slices.items() if index not in whole}


def _operands(rest: str) -> list[str]:
    return re.findall(r"%([\w.-]+)", rest.split(")")[0])


def main() -> None:
    """Compiles the steps and prints what is in them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_program")
    parser.add_argument("--networks", nargs="+", choices=STEPS, default=["tresnet_m"])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--channel-multiple", type=int, default=1)
    parser.add_argument("--by-path", action="store_true", help="the state not in flat buffers")
    arguments = parser.parse_args()
    # No driver is looked for, but the plugin is found.
    jax.config.update("jax_platforms", "cpu")
    jax.devices()
    described = {"target_config": _H100, "topology": "1x1x1"}
    mesh = make_mesh(topologies.get_topology_desc(platform="cuda", **described).devices)
    for network in arguments.networks:
        given = {"dtype": arguments.dtype, "channel_multiple": arguments.channel_multiple}
        lowered = lower_step(mesh, network, *STEPS[network], **given, packed=not arguments.by_path)
        compiled = lowered.compile()
        memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
        images, side = STEPS[network]
        title = f"{network}, {images} x {side}, {arguments.dtype}: {memory:,.0f} MiB planned"
        table = Table("", "kernels", "GB", "ms at 3.35 TB/s", title=title)
        shares = kernels(compiled.as_text())
        found = shares.values()
        shares["all"] = Share(sum(s.kernels for s in found), sum(s.bytes for s in found))
        for kind, share in sorted(shares.items(), key=lambda item: item[1].bytes):
            moved = 1e3 * share.bytes / BYTES_PER_SECOND
            table.add_row(kind, f"{share.kernels:,}", f"{share.bytes / 1e9:.2f}", f"{moved:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()
