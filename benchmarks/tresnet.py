"""TResNet beside torch: a forward pass of TResNet-M, and a training step of the small recipe's net.

    python benchmarks/tresnet.py [--repeats 9]

Times are medians on this machine's CPU, jax and torch by turns in one process, both with all
cores. The torch side is `converters.reference` with the same weights; its training step is the
asymmetric loss, backward, and `torch.optim.Adam`. Ratios above 1 say that mljax is faster. The
forward pass compares the logits first: a fast wrong answer is none.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
from flax import nnx

from converters import to_numpy
from converters.reference.linear import to_tensors
from converters.reference.tresnet import tresnet_logits
from mljax import create_model
from mljax.config.schema import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Preprocessing,
    ScheduleConfig,
    TrainConfig,
    part,
)
from mljax.models.arrays import merge_model, split_model
from mljax.training.optimizer import make_optimizer
from mljax.training.step import make_state, make_train_step


def median_ms(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Returns the median time of each function in milliseconds, run by turns after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def forward(batch: int, size: int) -> dict[str, Callable[[], object]]:
    """Returns TResNet-M's forward pass on both sides."""
    model = create_model("tresnet_m", num_classes=80, rngs=nnx.Rngs(0))
    weights = to_tensors(to_numpy(model))
    images = np.random.default_rng(0).random((batch, size, size, 3), np.float32)
    theirs = torch.tensor(images.transpose(0, 3, 1, 2))
    graph, params, stats = split_model(model)
    logits = jax.jit(lambda p, s, x: merge_model(graph, p, s)(x)["logits"])

    def run_torch() -> np.ndarray:
        with torch.no_grad():
            return tresnet_logits(weights, theirs).numpy()

    def run_jax() -> np.ndarray:
        return np.asarray(logits(params, stats, images))

    np.testing.assert_allclose(run_jax(), run_torch(), atol=1e-4)
    return {"jax": run_jax, "torch": run_torch}


def training(batch: int, size: int) -> dict[str, Callable[[], object]]:
    """Returns one optimizer step of the net of asl/csv on both sides."""
    config = Config(
        data=DataConfig(
            reader=part("digits"), preprocessing=Preprocessing(image_size=size), batch_size=batch
        ),
        model=ModelConfig(backbone=part("tresnet_m", layers=(1, 2, 3, 1), width=32)),
        losses=(LossConfig(name="asymmetric_loss", kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0}),),
        optimizer=OptimizerConfig(peak_lr=1e-3, weight_decay=1e-4),
        train=TrainConfig(epochs=1, ema_decay=0.997),
    )
    model = create_model(
        "tresnet_m", num_classes=5, backbone_kwargs=config.model.backbone.kwargs, rngs=nnx.Rngs(0)
    )
    rng = np.random.default_rng(0)
    images = rng.random((batch, size, size, 3), np.float32)
    labels = (rng.random((batch, 5)) < 0.3).astype(np.float32)
    optimizer = make_optimizer(config.optimizer, ScheduleConfig(), 1000)
    step = jax.jit(make_train_step(model, optimizer, config), donate_argnums=0)
    state = [make_state(model, optimizer, ema_decay=config.train.ema_decay)]
    inputs = {"images": images, "labels": labels, "valid": np.ones(batch, bool)}

    def run_jax() -> None:
        state[0], metrics = step(state[0], inputs, jax.random.key(0))
        jax.block_until_ready((state[0], metrics))

    weights = to_tensors(to_numpy(model))
    trained = [w.requires_grad_() for name, w in weights.items() if "running" not in name]
    averages = {name: w.detach().clone() for name, w in weights.items()}
    adam = torch.optim.Adam(trained, lr=1e-3, weight_decay=1e-4)
    theirs, targets = torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels)

    def run_torch() -> None:
        probability = torch.sigmoid(tresnet_logits(weights, theirs, training=True))
        absent = (1 - probability + 0.05).clamp(max=1)
        terms = targets * probability.clamp(min=1e-8).log()
        terms = terms + (1 - targets) * absent.clamp(min=1e-8).log()
        chosen = probability * targets + absent * (1 - targets)
        loss = -(terms * (1 - chosen).pow(4 * (1 - targets)).detach()).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for name, average in averages.items():
                average.mul_(0.997).add_(weights[name], alpha=0.003)

    return {"jax": run_jax, "torch": run_torch}


def main() -> None:
    """Prints the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    cases = {
        "TResNet-M forward, 8 x 224 px": forward(8, 224),
        "small TResNet training step, 32 x 96 px": training(32, 96),
    }
    for name, functions in cases.items():
        times = median_ms(functions, repeats)
        ratio = times["torch"] / times["jax"]
        print(
            f"{name}: jax {times['jax']:.0f} ms, torch {times['torch']:.0f} ms, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
