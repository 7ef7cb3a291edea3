"""What devices send each other in a training step, and the throughput that follows from it.

    python -m benchmarks.scaling [--networks tresnet_m tresnet_l] [--devices 1 8 64]

No device is needed: XLA makes as many as are asked for of one CPU, and the step is compiled for
shapes alone. Counted is the program as XLA's partitioner leaves it, before the optimizations of a
device: in it, every array is reduced by itself, in the type that the step computes it in (CPUs turn
bfloat16 into float32 later). Behind it XLA merges all-reduces of which none waits for another, as
those of the gradients. The rest are `in a row`: each waits for the one before.

`groups` is `train.batch_norm_groups`: 1 normalizes by the whole batch; as many as devices, by each
device's own images.

Throughput is predicted, not measured, from these assumptions:
  - a step on one device takes the time in `STEPS`, as one H100 did in bfloat16, or `--step-ms`;
  - an all-reduce of n devices sends 2 (n - 1) / n of its bytes over each device's link, at 450 GB/s
    by NVLink or 12.5 GB/s by Ethernet of 100 Gb/s, one device a host;
  - it waits for 2 log2(n) messages, of 2.5 microseconds by NVLink and 25 by Ethernet;
  - the slower figure hides nothing behind the computation, the faster one all but what is in a row.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.abstract_step import lower_step
from benchmarks.device_time import array_bytes, instructions
from mljax.devices.mesh import make_mesh

# Images a device, their side in pixels, and the milliseconds of a step of one device.
STEPS = {"tresnet_m": (128, 224, 24.5), "tresnet_l": (32, 448, 56.4)}
# Bytes a second of each device's link in one direction, and seconds of a message.
LINKS = {"NVLink": (450e9, 2.5e-6), "100 Gb/s": (12.5e9, 25e-6)}


# ---- counting


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What all-reduces of one step move.

    Attributes:
      all_reduces: how many there are.
      size: bytes of all their results.
      in_a_row: the longest chain of them, each waiting for the one before.
      waited_for: bytes of those that another one waits for.
      others: names of other operations between devices.
    """

    all_reduces: int
    size: int
    in_a_row: int
    waited_for: int
    others: tuple[str, ...] = ()


_COLLECTIVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def count_sent(program: str) -> Sent:
    """Returns what the entry of a partitioned program sends.

    Args:
      program: text of an HLO module whose collectives are all in its entry.

    Raises:
      ValueError: for collectives elsewhere, as in a loop, whose number is not known.
    """
    head, entry = re.split(r"^ENTRY ", program, maxsplit=1, flags=re.MULTILINE)
    if re.search(r" (all-reduce|" + "|".join(_COLLECTIVES) + r")(-start)?\(", head):
        raise ValueError("collectives in a loop or function of the program: their number is open")
    chains: dict[str, int] = {}
    reads: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    others: set[str] = set()
    for name, shape, operation, rest in instructions(entry.split("\n}")[0]):
        reads[name] = [operand for operand in re.findall(r"%([\w.-]+)", rest) if operand in chains]
        chains[name] = max((chains[operand] for operand in reads[name]), default=0)
        if operation in ("all-reduce", "all-reduce-start"):
            chains[name] += 1
            sizes[name] = array_bytes(shape)
        others |= {other for other in _COLLECTIVES if operation.startswith(other)}
    awaited: set[str] = set()
    for name in reversed(reads):
        if name in sizes or name in awaited:
            awaited |= set(reads[name])
    return Sent(
        all_reduces=len(sizes),
        size=sum(sizes.values()),
        in_a_row=max(chains.values(), default=0),
        waited_for=sum(size for name, size in sizes.items() if name in awaited),
        others=tuple(sorted(others)),
    )


# ---- the program


def partitioned(network: str, devices: int, groups: int, dtype: str) -> str:
    """Returns the text of the step's program for one of the devices.

    Another process compiles it, and is ended when the partitioner has written its result.

    Raises:
      ChildProcessError: if it ends without that.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--xla_force_host_platform_device_count={devices}",
            f"--xla_dump_to={folder}",
            "--xla_dump_hlo_pass_re=spmd-partitioning",
            "--xla_dump_hlo_module_re=jit_step",
        )
        settings = {"XLA_FLAGS": " ".join(flags), "JAX_ENABLE_COMPILATION_CACHE": "0"}
        settings |= {"JAX_PLATFORMS": "cpu"}
        given = json.dumps({"network": network, "groups": groups, "dtype": dtype})
        command = [sys.executable, "-m", "benchmarks.scaling", "--compile", given]
        process = subprocess.Popen(command, env=os.environ | settings)
        try:
            while True:
                ended = process.poll()
                for file in Path(folder).glob("*after_spmd-partitioning*"):
                    text = file.read_text()
                    # The entry comes last; the file may be half written.
                    if re.search(r"^ENTRY .*^}", text, re.MULTILINE | re.DOTALL):
                        return text
                if ended is not None:
                    raise ChildProcessError(f"{network}: the compilation ended with code {ended}")
                time.sleep(0.5)
        finally:
            process.kill()
            process.wait()


def compile_step(*, network: str, groups: int, dtype: str) -> None:
    """Compiles a step for all devices, from shapes alone."""
    mesh = make_mesh()
    images, side, _ = STEPS[network]
    given = {"dtype": dtype, "batch_norm_groups": groups, "packed": False}
    lower_step(mesh, network, images * mesh.size, side, **given).compile()


# ---- the prediction


def images_per_second(
    sent: Sent, devices: int, link: str, *, images: int, seconds: float
) -> tuple[float, float]:
    """Returns the throughput with nothing hidden, and with all hidden that is not in a row.

    Args:
      sent: in a step.
      devices: how many.
      link: of `LINKS`.
      images: a device and step.
      seconds: of a step on one device.
    """
    rate, message = LINKS[link]

    def sending(size: int) -> float:
        return 2 * (devices - 1) / devices * size / rate

    waiting = sent.in_a_row * 2 * math.log2(devices) * message
    times = (waiting + sending(sent.size), waiting + sending(sent.waited_for))
    slower, faster = (devices * images / (seconds + time) for time in times)
    return slower, faster


def main() -> None:
    """Prints what is sent, and what follows from it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--networks", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    text = "of a step on one device, for each network in order; default: measured on one H100"
    parser.add_argument("--step-ms", nargs="+", type=float, help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="what was counted, for others")
    parser.add_argument("--compile", metavar="JSON", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compile:
        compile_step(**json.loads(arguments.compile))
        return
    names = ("all-reduces", "in a row", "MB", "MB in a row")
    table = Table("network", "devices", "groups", *names, *(f"images/s, {link}" for link in LINKS))
    measured = [STEPS[network][2] for network in arguments.networks]
    rows = []
    for network, milliseconds in zip(
        arguments.networks, arguments.step_ms or measured, strict=True
    ):
        for devices in arguments.devices:
            for groups in dict.fromkeys((1, devices)):
                # One device sends nothing.
                sent = Sent(all_reduces=0, size=0, in_a_row=0, waited_for=0)
                if devices > 1:
                    program = partitioned(network, devices, groups, arguments.dtype)
                    sent = count_sent(program)
                given = {"images": STEPS[network][0], "seconds": milliseconds / 1e3}
                speeds = [images_per_second(sent, devices, link, **given) for link in LINKS]
                row = [network, devices, groups, sent.all_reduces, sent.in_a_row]
                row += [f"{size / 1e6:.2f}" for size in (sent.size, sent.waited_for)]
                shown = (f"{slower:,.0f} to {faster:,.0f}" for slower, faster in speeds)
                table.add_row(*map(str, row), *shown)
                kinds = {"network": network, "devices": devices, "groups": groups}
                rows.append(kinds | asdict(sent))
                print(rows[-1], file=sys.stderr)
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
