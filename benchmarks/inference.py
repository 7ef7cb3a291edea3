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
from collections.abc import Callable

import jax
import numpy as np
import torch
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.tresnet import Sides, channels_last, median_ms
from converters import to_numpy
from converters.reference.linear import to_tensors
from converters.reference.tresnet import tresnet_logits
from mljax import create_model
from mljax.config import Preprocessing
from mljax.devices.mesh import make_mesh
from mljax.formats.computation import make_computation
from mljax.formats.runtimes import onnx_model, run_onnx, run_openvino
from mljax.models.arrays import split_model
from mljax.models.classifier import Classifier
from mljax.models.inference import fetch, make_apply, make_forward


def torch_side(model: Classifier, images: np.ndarray, dtype: torch.dtype) -> Callable[[], object]:
    """Returns the compiled reference."""
    weights = channels_last(to_tensors(to_numpy(model)))
    weights = {name: w.to(dtype) if w.is_floating_point() else w for name, w in weights.items()}
    theirs = torch.tensor(images).permute(0, 3, 1, 2).to(dtype)
    compiled = torch.compile(tresnet_logits)

    def run() -> np.ndarray:
        with torch.no_grad():
            return compiled(weights, theirs).float().numpy()

    return run


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
    wide["torch.compile"] = torch_side(model, images, torch.float32)
    if bfloat16:
        half["torch.compile, bfloat16"] = torch_side(model, images, torch.bfloat16)
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
