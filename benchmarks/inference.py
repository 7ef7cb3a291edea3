"""Inference on the CPU: mljax, its exported file in other runtimes, and torch, in one run.

    python -m benchmarks.inference [--backbone tresnet_m] [--batch 8] [--repeats 7] [--bfloat16]

Images a second of TResNet-M at 224 pixels, medians by turns in one process, each side with all
cores: mljax as it is trained and folded, the file of `mljax.export` in ONNX Runtime and OpenVINO
(those that are installed), and `converters.reference` compiled by torch, its maps in
channels_last. Logits are compared first: a fast wrong answer is none. `--bfloat16` adds OpenVINO
and torch in bfloat16, whose differences are printed; CPUs without its instructions are slow there.
"""

import argparse
import importlib.util

import jax
import numpy as np
import torch
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.by_turns import Sides, median_ms
from benchmarks.torch_tresnet import torch_forward
from converters.reference.tresnet import tresnet_logits
from mljax import create_model
from mljax.config import Preprocessing
from mljax.devices.mesh import make_mesh
from mljax.formats.computation import make_computation
from mljax.formats.runtimes import onnx_model, run_onnx, run_openvino
from mljax.models.arrays import split_model
from mljax.models.inference import fetch, make_apply, make_forward


def make_sides(backbone: str, batch: int, size: int, *, bfloat16: bool) -> tuple[Sides, Sides]:
    """Returns the sides in float32, and those in bfloat16."""
    model = create_model(backbone, num_classes=80, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    _, params, statistics = split_model(model)
    forward, apply = make_forward(model, make_mesh()), make_apply(model)
    preprocessing = Preprocessing(image_size=size)
    file = onnx_model(make_computation(model, preprocessing=preprocessing))
    session = run_onnx(file)
    wide: Sides = {
        "mljax, not folded": lambda: fetch(forward(params, statistics, images))["logits"],
        "mljax": lambda: fetch(apply(images))["logits"],
        "ONNX Runtime": lambda: session(images)["logits"],
    }
    half: Sides = {}
    if importlib.util.find_spec("openvino"):
        in_float32 = run_openvino(file)
        wide["OpenVINO"] = lambda: in_float32(images)["logits"]
        if bfloat16:
            in_bfloat16 = run_openvino(file, precision="bf16")
            half["OpenVINO, bfloat16"] = lambda: in_bfloat16(images)["logits"]
    compiled = torch.compile(tresnet_logits)
    wide["torch.compile"] = torch_forward(model, images, compiled)
    if bfloat16:
        half["torch.compile, bfloat16"] = torch_forward(model, images, compiled, half=True)
    return wide, half


def main() -> None:
    """Prints images a second and their ratios to torch.compile in float32."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference")
    parser.add_argument("--backbone", default="tresnet_m", help="a TResNet")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    batch, size = arguments.batch, arguments.image_size
    wide, half = make_sides(arguments.backbone, batch, size, bfloat16=arguments.bfloat16)
    console = Console()
    expected = wide["mljax, not folded"]()
    for name, side in {**wide, **half}.items():
        difference = float(np.abs(side() - expected).max())
        assert name in half or difference <= 1e-4, f"{name} differs by {difference}"
        console.print(f"{name}: largest difference of a logit {difference:.1e}", highlight=False)
    times = median_ms({**wide, **half}, arguments.repeats)
    table = Table("side", "ms", "images/s", "to torch.compile", "to mljax, not folded")
    for name, value in times.items():
        rate = f"{1e3 * batch / value:.1f}"
        ratios = [f"{times[other] / value:.2f}" for other in ("torch.compile", "mljax, not folded")]
        table.add_row(name, f"{value:.0f}", rate, *ratios)
    console.print(f"{arguments.backbone}, {batch} x {size} px, {jax.devices()[0].platform}")
    console.print(table)


if __name__ == "__main__":
    main()
