"""Depthwise convolutions on the CPU: XLA's, mljax's, and torch's in one run.

    python -m benchmarks.depthwise [--repeats 7] [--batch 4]

The sizes are the 3x3 depthwise convolutions of EfficientNetV2-s for images of 224 and 448 pixels.
Times are medians, by turns in one process: the forward pass, and that with the gradients of map and
kernel. `grouped` is `lax.conv_general_dilated` with `feature_group_count`, `shifted` what
`mljax.layers.conv` computes: a sum of nine shifted products. Results are compared first: a fast
wrong answer is none.
"""

import argparse
from collections.abc import Callable

import jax
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from jax import lax

from benchmarks.by_turns import median_ms
from mljax.layers.conv import depthwise_convolution

# (side of the map at 224 pixels, channels, stride); twice the side at 448.
SIZES = (
    (28, 256, 2),
    (14, 512, 1),
    (14, 768, 1),
    (14, 960, 1),
    (14, 960, 2),
    (7, 1536, 1),
)


def passes(batch: int, side: int, channels: int, stride: int) -> dict[str, Callable[[], object]]:
    """Returns the forward pass, and that with its gradients, of each of the three."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, side, side, channels), np.float32)
    functions: dict[str, Callable[[], object]] = {}
    found = {}
    for name in ("grouped", "shifted"):
        layer = depthwise_convolution(channels, 3, stride=stride, rngs=nnx.Rngs(0))
        if name == "grouped":
            layer.conv_general_dilated = lax.conv_general_dilated
        graph, state = nnx.split(layer)
        forward = jax.jit(lambda state, x, graph=graph: nnx.merge(graph, state)(x))
        cotangent = np.ones_like(forward(state, images))
        both = jax.jit(
            lambda state, x, g, forward=forward: (lambda y, back: (y, back(g)))(
                *jax.vjp(forward, state, x)
            )
        )
        found[name] = jax.tree.leaves(both(state, images, cotangent))
        functions[f"{name} forward"] = lambda f=forward, s=state: jax.block_until_ready(
            f(s, images)
        )
        functions[f"{name} with gradient"] = lambda f=both, s=state, g=cotangent: (
            jax.block_until_ready(f(s, images, g))
        )
    for ours, theirs in zip(found["shifted"], found["grouped"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())

    kernel = torch.randn(channels, 1, 3, 3, requires_grad=True)
    maps = torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()

    def torch_forward() -> torch.Tensor:
        return F.conv2d(maps, kernel, stride=stride, padding=1, groups=channels)

    def torch_no_gradient() -> None:
        with torch.no_grad():
            torch_forward()

    functions["torch forward"] = torch_no_gradient
    functions["torch with gradient"] = lambda: torch.autograd.grad(
        torch_forward().sum(), (maps, kernel)
    )
    return functions


def main() -> None:
    """Prints a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    for factor in (1, 2):
        for side, channels, stride in SIZES:
            functions = passes(arguments.batch, factor * side, channels, stride)
            times = median_ms(functions, arguments.repeats)
            text = ", ".join(f"{name} {value:.1f}" for name, value in times.items())
            print(f"{factor * side} x {factor * side} x {channels}, stride {stride}, ms: {text}")


if __name__ == "__main__":
    main()
