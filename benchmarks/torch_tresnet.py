"""TResNet in torch for benchmarks: a forward pass and a training step with the weights of mljax.

Maps are in channels_last. The step is the asymmetric loss, backward, `torch.optim.Adam` and the
moving average.
"""

from collections.abc import Callable

import numpy as np
import torch

from converters import to_numpy
from converters.reference.linear import to_tensors
from converters.reference.tresnet import tresnet_logits
from mljax.models.classifier import Classifier

Logits = Callable[..., torch.Tensor]


def torch_forward(
    model: Classifier,
    images: np.ndarray,
    logits: Logits = tresnet_logits,
    *,
    device: str = "cpu",
    half: bool = False,
) -> Callable[[], np.ndarray]:
    """Returns a function that computes the logits.

    Args:
      model: gives the weights.
      images: `[b, h, w, 3]`.
      logits: of the network, perhaps compiled.
      device: torch's name.
      half: compute in bfloat16.
    """
    weights, maps = _weights(model, device), _maps(images, device)

    def run() -> np.ndarray:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
            return logits(weights, maps).float().cpu().numpy()

    return run


def torch_step(
    model: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    logits: Logits = tresnet_logits,
    *,
    device: str = "cpu",
    half: bool = False,
) -> Callable[[], None]:
    """Returns a function that takes one optimizer step; the arguments are those above."""
    weights, maps = _weights(model, device), _maps(images, device)
    trained = [w.requires_grad_() for name, w in weights.items() if "running" not in name]
    averages = {name: w.detach().clone() for name, w in weights.items()}
    adam = torch.optim.Adam(trained, lr=1e-3, weight_decay=1e-4)
    targets = torch.tensor(labels, device=device)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            found = logits(weights, maps, training=True).float()
        probability = torch.sigmoid(found)
        absent = (1 - probability + 0.05).clamp(max=1)
        terms = targets * probability.clamp(min=1e-8).log()
        terms = terms + (1 - targets) * absent.clamp(min=1e-8).log()
        chosen = probability * targets + absent * (1 - targets)
        value = -(terms * (1 - chosen).pow(4 * (1 - targets)).detach()).sum()
        adam.zero_grad()
        value.backward()
        adam.step()
        with torch.no_grad():
            for name, average in averages.items():
                average.mul_(0.997).add_(weights[name], alpha=0.003)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _maps(images: np.ndarray, device: str) -> torch.Tensor:
    return torch.tensor(images, device=device).permute(0, 3, 1, 2)


def _weights(model: Classifier, device: str) -> dict[str, torch.Tensor]:
    """Returns the weights with filters in the order that convolutions are fastest in."""
    return {
        name: (w.contiguous(memory_format=torch.channels_last) if w.ndim == 4 else w).to(device)
        for name, w in to_tensors(to_numpy(model)).items()
    }
