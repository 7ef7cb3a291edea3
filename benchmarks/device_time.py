"""Where the device's time goes: what each instruction of a program is, and how long it ran.

The time is that of jax's profiler, on GPUs and on CPUs; it needs no TensorFlow.
"""

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?(%[\w.-]+) .*{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (.*?[})\]]) ([\w-]+)\((.*)$")
# In this order: a fusion is what its first of these is.
_WORK = {
    "convolutions": re.compile(r" convolution\(|custom_call_target=\"[^\"]*conv"),
    "products": re.compile(r" dot\(|custom_call_target=\"[^\"]*(gemm|cublas|matmul)"),
    "reductions": re.compile(r" (reduce|reduce-window|select-and-scatter)\("),
    "copies": re.compile(r" (copy|transpose|concatenate)\("),
}


def instruction_kinds(program: str, *, training: bool) -> dict[str, str]:
    """Returns what each instruction is: convolutions, products, reductions, copies or elementwise.

    Args:
      program: text of a compiled HLO module.
      training: of a step; what is no part of the loss and its gradient is `optimizer`, which holds
        averages, norms and the check for what is not finite; the arrays that the network takes out
        of the flat buffers are copies.
    """
    bodies = computations(program)
    kinds = {}
    for instruction, _, operation, rest in instructions(program):
        if operation in ("conditional", "while", "call"):
            continue  # What they call is in the profile by itself.
        line = f" {operation}({rest}\n"
        called = re.findall(r"(?:calls|to_apply)=(%[\w.-]+)", line)
        whole = line + "".join(bodies.get(body, "") for body in called)
        kind = next((kind for kind, work in _WORK.items() if work.search(whole)), "elementwise")
        found = re.search(r'op_name="([^"]*)"', line)
        path = found[1] if found else ""
        if training and "/jit(_cut)/" in path:
            kind = "copies"
        elif training and path and not re.search(r"jvp|transpose\(", path):
            kind = "optimizer"
        kinds[instruction] = kind
    return kinds


def computations(program: str) -> dict[str, str]:
    """Returns the text of each computation of a compiled HLO module by its name, with the `%`."""
    bodies: dict[str, str] = {}
    name = ""
    for line in program.splitlines():
        if found := _COMPUTATION.match(line):
            name = found[1]
        bodies[name] = bodies.get(name, "") + line + "\n"
    return bodies


def instructions(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields name, shape, operation and the rest of the line, operands before their readers."""
    for line in text.splitlines():
        if found := _INSTRUCTION.match(line):
            name, shape, operation, rest = found.groups()
            yield name, shape, operation, rest


def array_bytes(shape: str) -> int:
    """Returns the bytes of all arrays in a shape as HLO writes it; one each for truth values."""
    return sum(
        math.prod(int(side) for side in sides.split(",") if side) * int(bits or 8) // 8
        for bits, sides in _ARRAY.findall(shape)
    )


def device_ms(run: Callable[[], Any], kinds: dict[str, str], repeats: int) -> dict[str, float]:
    """Returns the milliseconds of each kind of instruction in one call; on CPUs of all threads.

    Args:
      run: calls the program and waits for it.
      kinds: of `instruction_kinds`; what is not among them is `other`.
      repeats: calls that are averaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = ProfileData.from_file(str(path))
    found: dict[str, float] = {}
    # A GPU's routine that XLA made has its instruction's name, without dots.
    kinds = kinds | {name.replace(".", "_").replace("-", "_"): kind for name, kind in kinds.items()}
    for plane in profile.planes:
        on_gpu = plane.name.startswith("/device:GPU")
        for line in plane.lines:
            if not (on_gpu and line.name.startswith("Stream") or plane.name == "/host:CPU"):
                continue
            for event in line.events:
                named = str(dict(event.stats).get("hlo_op", event.name))
                kind = kinds.get(named) or kinds.get(event.name)
                if kind is None and on_gpu:
                    kind = _of_library(event.name)
                # On the host, most events are Python's and the runtime's.
                if kind is not None:
                    found[kind] = found.get(kind, 0.0) + event.duration_ns / 1e6 / repeats
    return found


def _of_library(routine: str) -> str:
    for kind, name in (("convolutions", "fprop|dgrad|wgrad|conv"), ("products", "gemm|cublas")):
        if re.search(name, routine):
            return kind
    return "other"
