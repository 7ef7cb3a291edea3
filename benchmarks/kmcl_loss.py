"""KMCL's kernel losses beside a plain torch transcription: time of value and gradient, and memory.

    python benchmarks/kmcl_loss.py [--repeats 9] [--cpu-time]

Times are medians on this machine's CPU, jax and torch by turns in one process, both with all
cores: meaningful on an idle machine only, for torch's threads wait for each other at every
operation. On a busy one, `taskset -c 0 python ... --cpu-time` compares the seconds that one core
spends on each. The torch side is the published algorithm, written from its formulas: kernels as
`[b, d, k]` arrays and a Python loop over anchors, float32. "contrast" is the Bhattacharyya term
alone, "both" adds the reconstruction term.

Memory is for value and gradient of both terms with anisotropic kernels (k = 80, d = 128): what XLA
plans, and for b = 256 also the peak resident size of a process that runs it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mljax.losses.kernel_mixture import kernel_contrastive_loss, reconstruction_loss

Arrays = dict[str, np.ndarray]


def make_inputs(b: int, k: int, d: int, *, isotropic: bool) -> Arrays:
    """Returns a batch of about three labels an image, with kernels near enough to have slopes."""
    rng = np.random.default_rng(0)
    rows = 1 if isotropic else d
    inputs = {
        "logits": rng.normal(size=(b, k)),
        "labels": rng.random((b, k)) < 3 / k,
        "features": rng.random((b, d)),
        "means": 0.02 * rng.normal(size=(b, rows, k)),
        "variances": rng.uniform(1, 1.02, (b, rows, k)),
    }
    return {name: value.astype(np.float32) for name, value in inputs.items()}


def jax_loss(inputs: dict, *, reconstruct: bool) -> jax.Array:
    """Returns the mean contrast, plus the mean reconstruction loss if asked for."""
    contrast = {name: inputs[name] for name in inputs if name != "logits"}
    loss = jnp.mean(kernel_contrastive_loss(**contrast))
    return loss + jnp.mean(reconstruction_loss(**inputs)) if reconstruct else loss


def jax_program(inputs: Arrays, *, reconstruct: bool) -> Callable[[], float]:
    """Returns a function that runs value and gradient, and gives the value."""

    @jax.jit
    def value_and_gradient(arrays: dict, labels: jax.Array) -> tuple:
        return jax.value_and_grad(
            lambda arrays: jax_loss(arrays | {"labels": labels}, reconstruct=reconstruct)
        )(arrays)

    arrays = jax.tree.map(jnp.asarray, inputs)
    labels = arrays.pop("labels")
    return lambda: float(jax.block_until_ready(value_and_gradient(arrays, labels))[0])


def torch_program(inputs: Arrays, *, reconstruct: bool) -> Callable[[], float]:
    """Returns the same as `jax_program`, in torch with a loop over anchors."""
    import torch

    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    labels = tensors.pop("labels")
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    b, width = inputs["features"].shape

    def contrast() -> torch.Tensor:
        means = tensors["means"]
        std = tensors["variances"].sqrt() + 2.220446e-16**0.5
        shared = labels @ labels.T
        sizes = labels.sum(1)
        jaccard = shared / (sizes[:, None] + sizes - shared).clamp_min(1)
        matched = (shared > 0) & ~torch.eye(b, dtype=torch.bool)
        total = torch.zeros(())
        for n in range(b):
            if not matched[n].any():
                continue
            sums = std[n] ** 2 + std**2
            ratios = 0.5 * torch.log(sums / (2 * std[n] * std))
            distances = (ratios + 0.25 * (means[n] - means) ** 2 / sums).sum(1) * width
            weights = torch.exp(torch.exp(-distances) / 0.17)
            others = torch.ones(b, 1)
            others[n] = 0
            rows = matched[n]
            shares = jaccard[n, rows][:, None] * weights[rows] / (weights * others).sum(0)
            terms = torch.log(shares + 1e-7) * labels[n] * labels[rows]
            total = total - terms.sum() / rows.sum()
        return total / b

    def reconstruction() -> torch.Tensor:
        std = tensors["variances"].sqrt() + 2.220446e-16**0.5
        gaps = (tensors["features"][:, :, None] - tensors["means"]) / std
        kernels = torch.exp(-0.5 * (gaps**2).sum(1)).clamp_min(1.17549e-38)
        weights = torch.sigmoid(tensors["logits"]) * kernels
        return -torch.log(((labels * weights).sum(1) / weights.sum(1)).clamp_min(1e-7)).mean()

    def run() -> float:
        loss = contrast() + reconstruction() if reconstruct else contrast()
        torch.autograd.grad(loss, leaves, allow_unused=True)
        return loss.item()

    return run


def compare(repeats: int, clock: Callable[[], float]) -> None:
    """Prints the medians of both sides and their ratio for every size."""
    print(f"{'kernels':12} {'b':>3} {'k':>3} {'d':>5} {'terms':9}", end="")
    print(f" {'jax ms':>8} {'torch ms':>9} {'ratio':>6}   values")
    for d, isotropic in ((128, False), (2048, True)):
        for b in (16, 64):
            for k in (20, 80):
                inputs = make_inputs(b, k, d, isotropic=isotropic)
                for reconstruct in (False, True):
                    programs = [
                        make(inputs, reconstruct=reconstruct)
                        for make in (jax_program, torch_program)
                    ]
                    values = [program() for program in programs]
                    times = [[], []]
                    for _ in range(repeats):
                        for program, measured in zip(programs, times, strict=True):
                            start = clock()
                            program()
                            measured.append(1e3 * (clock() - start))
                    ours, theirs = (statistics.median(measured) for measured in times)
                    kind = "isotropic" if isotropic else "anisotropic"
                    terms = "both" if reconstruct else "contrast"
                    print(f"{kind:12} {b:3} {k:3} {d:5} {terms:9}", end="")
                    print(f" {ours:8.1f} {theirs:9.1f} {theirs / ours:5.1f}x", end="")
                    print(f"   {values[0]:.6f} {values[1]:.6f}", flush=True)


def planned_megabytes(b: int) -> float:
    """Returns what XLA plans for value and gradient: inputs, outputs and temporaries."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype),
        make_inputs(2, 80, 128, isotropic=False),
    )
    labels = shapes.pop("labels")
    program = jax.jit(
        jax.value_and_grad(
            lambda arrays, labels: jax_loss(arrays | {"labels": labels}, reconstruct=True)
        )
    )
    plan = program.lower(shapes, labels).compile().memory_analysis()
    sizes = plan.argument_size_in_bytes, plan.output_size_in_bytes, plan.temp_size_in_bytes
    return sum(sizes) / 1e6


def peak_megabytes() -> float:
    """Returns this program's peak resident size so far, on Linux."""
    # Not getrusage: its peak survives the exec, and would be that of the process that started us.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def run_large_batch() -> None:
    """Runs b = 256 and prints the peak of this process."""
    before = peak_megabytes()
    program = jax_program(make_inputs(256, 80, 128, isotropic=False), reconstruct=True)
    program()
    start = time.perf_counter()
    program()
    seconds = time.perf_counter() - start
    print(f"b = 256: peak resident size {peak_megabytes():.0f} MB", end="")
    print(f" ({before:.0f} MB before), {seconds:.2f} s")


def main() -> None:
    """Prints times, then memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--large-batch", action="store_true", help="only the peak of b = 256")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, not elapsed time")
    arguments = parser.parse_args()
    if arguments.large_batch:
        run_large_batch()
        return
    compare(arguments.repeats, time.process_time if arguments.cpu_time else time.perf_counter)
    one = 256 * 256 * 80 * 128 * 4 / 1e6
    print(f"one [b, b, k, d] array at b = 256: {one:.0f} MB")
    for b in (256, 1024):
        print(f"b = {b}: XLA plans {planned_megabytes(b):.0f} MB", flush=True)
    subprocess.run([sys.executable, __file__, "--large-batch"], check=True)


if __name__ == "__main__":
    main()
