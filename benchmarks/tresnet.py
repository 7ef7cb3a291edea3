"""TResNet beside torch: a forward pass of TResNet-M, a training step of it, and one of a small net.

    python -m benchmarks.tresnet [--repeats 9] [--compile]

Times are medians on this machine's CPU, all sides by turns in one process, each with all cores. The
torch side is `converters.reference` with the same weights, its maps in channels_last; its training
step is the asymmetric loss, backward, `torch.optim.Adam` and the moving average. "XLA's defaults"
is mljax without `mljax.devices.compiler`. Ratios above 1 say that mljax is faster. The forward pass
compares the logits first: a fast wrong answer is none. `--compile` adds torch.compile.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.by_turns import Sides, median_ms
from benchmarks.torch_tresnet import Logits, torch_forward, torch_step
from converters.reference.tresnet import tresnet_logits
from mljax import create_model
from mljax.config import loss, part
from mljax.devices.compiler import compiler_options
from mljax.devices.mesh import make_mesh
from mljax.models.arrays import merge_model, split_model
from mljax.training.gradients import make_gradients
from mljax.training.objective import make_terms
from mljax.training.optimizer import group_names, make_optimizer
from mljax.training.packing import Packing
from mljax.training.state import make_state
from mljax.training.step import make_train_step


def forward(batch: int, size: int, *, compiled: bool) -> Sides:
    """Returns TResNet-M's forward pass on all sides."""
    model = create_model("tresnet_m", num_classes=80, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    graph, params, statistics_ = split_model(model)

    def jax_side(options: dict[str, str]) -> Callable[[], np.ndarray]:
        logits = jax.jit(
            lambda p, s, x: merge_model(graph, p, s)(x)["logits"], compiler_options=options
        )
        return lambda: np.asarray(logits(params, statistics_, images))

    torch_side = functools.partial(torch_forward, model, images)
    sides = make_sides(jax_side, torch_side, compiled=compiled)
    expected = sides["torch"]()
    for name, side in sides.items():
        np.testing.assert_allclose(side(), expected, atol=1e-4, err_msg=name)
    return sides


def training(batch: int, size: int, *, compiled: bool, **backbone: Any) -> Sides:  # noqa: ANN401
    """Returns one optimizer step on all sides."""
    model = create_model("tresnet_m", num_classes=5, backbone_kwargs=backbone, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32)
    labels = (rng.random((batch, 5)) < 0.3).astype(np.float32)
    optimizer = make_optimizer(part("torch_adam", weight_decay=1e-4))
    rates = {"learning_rate": np.float32(1e-3)}
    term = loss("asymmetric_loss", gamma_neg=4.0, gamma_pos=0.0)
    first = make_state(model, optimizer, rates, ema_decay=0.997)
    packing = Packing(first, group_names(first.params, ()))
    gradients = packing.gradients(make_gradients(model, make_terms((term,), ())))
    step = make_train_step(gradients, optimizer, ema_decay=0.997)
    inputs = {"images": images, "labels": labels, "valid": np.ones(batch, bool)}

    def jax_side(options: dict[str, str]) -> Callable[[], None]:
        compiled_step = jax.jit(step, donate_argnums=0, compiler_options=options)
        state = [packing.pack(jax.tree.map(lambda x: x.copy(), first))]

        def run() -> None:
            state[0], metrics = compiled_step(state[0], inputs, jax.random.key(0), rates)
            jax.block_until_ready((state[0], metrics))

        return run

    torch_side = functools.partial(torch_step, model, images, labels)
    return make_sides(jax_side, torch_side, compiled=compiled)


def make_sides(
    jax_side: Callable[[dict[str, str]], Callable[[], Any]],
    torch_side: Callable[[Logits], Callable[[], Any]],
    *,
    compiled: bool,
) -> Sides:
    """Returns all sides: of options for `jax.jit`, and of a network in torch."""
    sides: Sides = {
        "mljax": jax_side(compiler_options(make_mesh())),
        "XLA's defaults": jax_side({}),
        "torch": torch_side(tresnet_logits),
    }
    if compiled:
        # Of a second size it would make one program for all sizes, which Inductor fails at.
        sides["torch.compile"] = torch_side(torch.compile(tresnet_logits, dynamic=False))
    return sides


def main() -> None:
    """Prints the times and their ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tresnet")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    arguments = parser.parse_args()
    compiled = arguments.compile
    cases: dict[str, Callable[[], Sides]] = {
        "TResNet-M forward, 8 x 224 px": lambda: forward(8, 224, compiled=compiled),
        "TResNet-M step, 8 x 112 px": lambda: training(8, 112, compiled=compiled),
        "small TResNet step, 32 x 96 px": lambda: training(
            32, 96, compiled=compiled, layers=(1, 2, 3, 1), width=32
        ),
    }
    table = Table("work", "side", "ms", "its time / mljax's")
    for name, make in cases.items():
        times = median_ms(make(), arguments.repeats)
        for side, value in times.items():
            table.add_row(name, side, f"{value:.0f}", f"{value / times['mljax']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
