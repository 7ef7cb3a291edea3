"""What mljax costs on a GPU, in one run of at most ten minutes; beside torch where it has CUDA.

    python -m benchmarks.gpu [--output gpu.json] [--seconds 560] [--only step inference ...]
    python -m benchmarks.gpu --tiny          # all of it on a CPU, sizes of no meaning

Cases run in the order of their worth; those that the time does not reach are named. After each, the
file has all results so far. Milliseconds are medians of five rounds of calls, a round waited for as
a whole. `--tiny` shows that all of it runs; its figures say nothing.

  - step: a training step (Adam, moving average) of TResNet-M and -L and EfficientNetV2-s in
    bfloat16, float32 (TF32 on a GPU) and float32 at `highest`; where the device's time goes; memory
  - channels: TResNet-L, whose 76 and 152 channels `train.channel_multiple` pads: 8 to 80 and 152,
    16 to 80 and 160
  - inference: with batch norm folded into the kernels and without
  - equal_bits: two runs of one program, and of two compilations, with and without
    `train.deterministic`; arrays of the state that differ after three steps
  - depthwise: a grouped convolution beside nine shifted products, forward and backward
  - abort: ResNet-18 with CIFAR's stem at `highest`, whose compilation aborted on an H100, under
    other options of XLA, each in a process of its own
  - torch: TResNet-M's step and forward pass, eager and torch.compile
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from rich.console import Console
from rich.table import Table

from benchmarks import depthwise
from benchmarks.by_turns import milliseconds
from benchmarks.device_time import device_ms, instruction_kinds
from mljax import create_model
from mljax.config import loss, part
from mljax.config.schema import MatmulPrecision
from mljax.devices.compiler import at_precision, compiler_options
from mljax.devices.mesh import make_mesh, state_sharding
from mljax.layers.conv import depthwise_convolution
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier
from mljax.models.folding import fold
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import group_names, make_optimizer
from mljax.training.packing import Packing
from mljax.training.state import make_state
from mljax.training.step import jit_step, make_train_step

Row = dict[str, Any]
RATES = {"learning_rate": np.float32(1e-3)}


@dataclass(frozen=True, kw_only=True)
class Work:
    """A network, images in a step, their side, and how often things are repeated."""

    network: str
    images: int
    side: int
    calls: int = 10
    arguments: tuple[tuple[str, Any], ...] = ()

    def model(self, dtype: str | None) -> Classifier:
        """Returns the network with 80 classes."""
        return create_model(
            self.network,
            num_classes=80,
            backbone_kwargs=dict(self.arguments),
            dtype=dtype,
            rngs=nnx.Rngs(0),
        )

    def batch(self) -> dict[str, np.ndarray]:
        """Returns random images and labels."""
        rng = np.random.default_rng(0)
        return {
            "images": rng.random((self.images, self.side, self.side, 3), np.float32),
            "labels": (rng.random((self.images, 80)) < 0.05).astype(np.float32),
            "valid": np.ones(self.images, bool),
        }


FULL = {
    "M": Work(network="tresnet_m", images=128, side=224),
    "L": Work(network="tresnet_l", images=32, side=448),
    "S": Work(network="efficientnet_v2_s", images=32, side=448),
    "inference": Work(network="tresnet_m", images=256, side=224),
}
_ONE_BLOCK = (("layers", (1, 0, 1, 0)), ("width", 8))
_NARROW = (("layers", (1, 0, 0, 0)), ("width", 10))
_SMALL = (("layers", (1, 1, 1, 1, 1, 1)), ("widths", (8, 8, 8, 8, 8, 8)), ("num_features", 16))
TINY = {
    "M": Work(network="tresnet_m", images=4, side=32, calls=2, arguments=_ONE_BLOCK),
    "L": Work(network="tresnet_l", images=4, side=32, calls=2, arguments=_NARROW),
    "S": Work(network="efficientnet_v2_s", images=4, side=32, calls=2, arguments=_SMALL),
    "inference": Work(network="tresnet_m", images=4, side=32, calls=2, arguments=_ONE_BLOCK),
}


class Stepper:
    """A compiled training step with its state: a call takes one step."""

    def __init__(
        self,
        work: Work,
        dtype: str | None,
        precision: MatmulPrecision = "default",
        *,
        deterministic: bool = False,
        channel_multiple: int = 1,
    ) -> None:
        model, mesh = work.model(dtype), make_mesh(jax.devices()[:1])
        optimizer = make_optimizer(part("torch_adam", weight_decay=1e-4))
        term = loss("asymmetric_loss", gamma_neg=4.0, gamma_pos=0.0)
        terms = make_terms((term,), ())
        gradients = make_gradients(model, terms, channel_multiple=channel_multiple)
        state = make_state(model, optimizer, RATES, ema_decay=0.997)
        packing = Packing(state, group_names(state.params, ()))
        gradients = packing.gradients(gradients)
        self.state: Any = packing.pack(state)
        self.first = jax.tree.map(np.asarray, self.state)
        self.batch = jax.device_put(work.batch())
        step = jit_step(
            make_train_step(gradients, optimizer, ema_decay=0.997),
            mesh,
            state_sharding(mesh, self.state, fsdp=False),
            matmul_precision=precision,
            deterministic=deterministic,
        )
        began = time.monotonic()
        self.program = step.lower(self.state, self.batch, jax.random.key(0), RATES).compile()
        self.compilation = time.monotonic() - began

    def __call__(self) -> Any:  # noqa: ANN401
        """Takes a step; returns its metrics."""
        self.state, metrics = self.program(self.state, self.batch, jax.random.key(0), RATES)
        return metrics


def step_row(work: Work, *given: Any, **chosen: Any) -> Row:  # noqa: ANN401
    """Returns time, memory and the split of a step; the arguments are those of `Stepper`."""
    step = Stepper(work, *given, **chosen)
    time_of_step = milliseconds(step, work.calls)
    row: Row = {"ms": time_of_step, "images/s": 1e3 * work.images / time_of_step}
    row["compilation s"] = step.compilation
    row["planned MiB"] = step.program.memory_analysis().temp_size_in_bytes / 2**20
    kinds = instruction_kinds(step.program.as_text(), training=True)
    split = device_ms(lambda: jax.block_until_ready(step()), kinds, work.calls)
    return row | {f"{kind} ms": value for kind, value in sorted(split.items())}


def inference_row(work: Work, dtype: str | None, *, folded: bool) -> Row:
    """Returns the time of a forward pass whose images are on the device."""
    model = work.model(dtype)
    if folded:
        model = fold(model)
    graph, params, variables = split_model(model)
    options = compiler_options(make_mesh(jax.devices()[:1]))
    forward = jax.jit(
        lambda p, v, x: merge_model(graph, p, v)(x)["logits"], compiler_options=options
    )
    images = jax.device_put(work.batch()["images"])
    taken = milliseconds(lambda: forward(params, variables, images), work.calls)
    return {"ms": taken, "images/s": 1e3 * work.images / taken}


def equal_bits_row(work: Work, *, deterministic: bool) -> Row:
    """Returns how many arrays of two runs of three steps differ, and what a step takes."""

    def three_steps(step: Stepper) -> list[np.ndarray]:
        step.state = jax.device_put(step.first)
        for _ in range(3):
            step()
        return [np.asarray(array) for array in jax.tree.leaves(step.state)]

    def differing(a: list[np.ndarray], b: list[np.ndarray]) -> int:
        return sum(x.tobytes() != y.tobytes() for x, y in zip(a, b, strict=True))

    step = Stepper(work, None, deterministic=deterministic)
    first, second = three_steps(step), three_steps(step)
    jax.clear_caches()
    third = three_steps(Stepper(work, None, deterministic=deterministic))
    return {
        "arrays": len(first),
        "differ in one program": differing(first, second),
        "differ between compilations": differing(first, third),
        "ms": milliseconds(step, work.calls),
    }


def depthwise_row(batch: int, side: int, channels: int, stride: int, dtype: str | None) -> Row:
    """Returns the time of a depthwise convolution and its gradients in both forms."""
    layer = depthwise_convolution(channels, 3, stride=stride, dtype=dtype, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    maps = jnp.ones((batch, side, side, channels), dtype)

    row: Row = {}
    for name, choose in (
        ("grouped", lambda *a, cpu, default: default(*a)),
        ("shifted", lambda *a, cpu, default: cpu(*a)),
    ):

        def convolve(state: Any, maps: Any) -> Any:  # noqa: ANN401
            return nnx.merge(graph, state)(maps)

        def total(state: Any, maps: Any, convolve: Any = convolve) -> Any:  # noqa: ANN401
            return convolve(state, maps).astype(float).sum()

        with mock.patch.object(lax, "platform_dependent", choose):
            forward = jax.jit(convolve).lower(state, maps).compile()
            gradient = jax.jit(jax.grad(total, (0, 1))).lower(state, maps).compile()
        row[f"{name} forward ms"] = milliseconds(lambda f=forward: f(state, maps), 10)
        row[f"{name} gradients ms"] = milliseconds(lambda f=gradient: f(state, maps), 10)
    return row


# What may lead around an abort of the compiler; that one of these does is not known.
ABORT_OPTIONS = {
    "as it is": "",
    "no trials": "--xla_gpu_autotune_level=0",
    "deterministic": "--xla_gpu_deterministic_ops=true",
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
}


def abort_row(options: str) -> Row:
    """Returns how a process ends that compiles and runs ResNet-18 for CIFAR at `highest`."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {options}".strip()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--resnet18"],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        errors="replace",
    )
    lines = done.stderr.splitlines()
    said = next((line for line in lines if "Check failed" in line or line.startswith("F")), "")
    return {"exit code": done.returncode, "seconds": time.monotonic() - began, "said": said[:300]}


def run_resnet18() -> None:
    """Computes logits of a ResNet-18 with CIFAR's stem, then their gradients, at `highest`."""
    model = create_model(
        "resnet18", num_classes=10, backbone_kwargs={"cifar_stem": True}, rngs=nnx.Rngs(0)
    )
    graph, params, variables = split_model(model)
    images = jnp.ones((4, 32, 32, 3))

    def total(params: Any) -> Any:  # noqa: ANN401
        return merge_model(graph, params, variables)(images)["logits"].sum()

    for function in (total, jax.grad(total)):
        jax.block_until_ready(jax.jit(at_precision("highest", function))(params))


def torch_row(work: Work, *, training: bool, compiled: bool) -> Row:
    """Returns the time of torch's step or forward pass, in bfloat16 on a GPU."""
    import torch

    from benchmarks.torch_tresnet import torch_forward, torch_step
    from converters.reference.tresnet import tresnet_logits

    on_gpu = torch.cuda.is_available()
    device: Any = {"device": "cuda" if on_gpu else "cpu", "half": on_gpu}
    if jax.default_backend() == "gpu" and not on_gpu:
        return {"left out": "this torch has no CUDA"}
    model, batch = work.model(None), work.batch()
    logits = torch.compile(tresnet_logits) if compiled else tresnet_logits
    if training:
        run: Any = torch_step(model, batch["images"], batch["labels"], logits, **device)
    else:
        run = torch_forward(model, batch["images"], logits, **device)
    taken = milliseconds(run, work.calls)
    return {"ms": taken, "images/s": 1e3 * work.images / taken}


def cases(*, tiny: bool) -> Iterator[tuple[str, str, Callable[[], Row]]]:
    """Yields kind, name and function of each case, the most wanted first."""
    works, of = (TINY if tiny else FULL), functools.partial
    yield "step", "M bfloat16", of(step_row, works["M"], "bfloat16")
    yield "step", "L bfloat16", of(step_row, works["L"], "bfloat16")
    for multiple in (8, 16):
        case = of(step_row, works["L"], "bfloat16", channel_multiple=multiple)
        yield "channels", f"L bfloat16, multiple {multiple}", case
    for folded in (True, False):
        name = f"M bfloat16{', folded' if folded else ''}"
        yield "inference", name, of(inference_row, works["inference"], "bfloat16", folded=folded)
    for training, name in ((True, "step"), (False, "inference")):
        work = works["M" if training else "inference"]
        yield "torch", f"M {name}", of(torch_row, work, training=training, compiled=False)
    for deterministic in (False, True):
        name = "deterministic" if deterministic else "as it is"
        work = (TINY if tiny else BITS)["M"]
        yield "equal_bits", name, of(equal_bits_row, work, deterministic=deterministic)
    batch = 1 if tiny else 64
    for side, channels, stride in depthwise.SIZES[:2] if tiny else depthwise.SIZES:
        for dtype in (None, "bfloat16"):
            name = f"{side} x {side} x {channels}, stride {stride}, {dtype or 'float32'}"
            yield "depthwise", name, of(depthwise_row, batch, side, channels, stride, dtype)
    for name, text in list(ABORT_OPTIONS.items())[: 1 if tiny else None]:
        yield "abort", name, of(abort_row, text)
    yield "step", "S bfloat16", of(step_row, works["S"], "bfloat16")
    for name in "MS":
        yield "step", f"{name} float32", of(step_row, works[name], None)
        yield "step", f"{name} float32 highest", of(step_row, works[name], None, "highest")
    for training, name in ((True, "step"), (False, "inference")):
        work = works["M" if training else "inference"]
        given = {"training": training, "compiled": True}
        yield "torch", f"M {name}, compiled", of(torch_row, work, **given)


# Small enough to be compiled four times.
BITS = {"M": Work(network="tresnet_m", images=32, side=224, arguments=(("layers", (1, 1, 1, 1)),))}


def show(rows: list[Row]) -> None:
    """Prints the results, a table for each kind of case."""
    for kind in dict.fromkeys(row["kind"] for row in rows):
        those = [row for row in rows if row["kind"] == kind]
        names = list(dict.fromkeys(n for row in those for n in row if n not in ("kind", "case")))
        cells = [[kind, *names]]
        for row in those:
            values = (row.get(name, "") for name in names)
            texts = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
            cells.append([row["case"], *texts])
        if len(names) > 4:
            cells = list(zip(*cells, strict=True))
        table = Table(*cells[0])
        for texts in cells[1:]:
            table.add_row(*texts)
        Console().print(table)


def main() -> None:
    """Runs the cases; writes and prints what they found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=560, help="no case begins after these")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="such as step, depthwise, abort")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, of no meaning")
    parser.add_argument("--resnet18", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resnet18:
        run_resnet18()
        return
    # The processes of `abort` and torch need memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Each case compiles what it runs, so that `equal_bits` compares what was compiled twice.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_disable_most_optimizations", arguments.tiny)
    began, rows = time.monotonic(), []
    device = jax.devices()[0].device_kind
    for kind, name, run in cases(tiny=arguments.tiny):
        if arguments.only and kind not in arguments.only:
            continue
        row: Row = {"kind": kind, "case": name}
        if time.monotonic() - began > arguments.seconds:
            row["left out"] = "no time"
        else:
            try:
                row |= run()
            except Exception as error:
                traceback.print_exc()
                row["failed"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
        print(f"{time.monotonic() - began:.0f} s", row, file=sys.stderr, flush=True)
        found = {"device": device, "jax": jax.__version__, "tiny": arguments.tiny, "rows": rows}
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    print(device)
    show(rows)


if __name__ == "__main__":
    main()
