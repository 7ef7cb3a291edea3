"""CSRA's heads in plain torch over a state dict, written from the published facts.

Importing this module needs torch.

Zhu and Wu, https://arxiv.org/abs/2108.02456.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def csra_logits(
    weights: Mapping[str, Tensor],
    features: Tensor,
    *,
    temperatures: Sequence[float | None],
    weight: float,
) -> Tensor:
    """Returns the logits `[b, k]`.

    Args:
      weights: the state dict.
      features: `[b, c, h, w]`.
      temperatures: of each head; None for the maximum over space.
      weight: of the attended score.
    """
    logits = torch.zeros((), dtype=features.dtype)
    for number, temperature in enumerate(temperatures):
        kernel = weights[f"classifier.multi_head.{number}.head.weight"]
        score = F.conv2d(features, kernel).flatten(2) / kernel.norm(dim=1).view(1, -1, 1)
        if temperature is None:
            attended = score.amax(2)
        else:
            attended = (torch.softmax(temperature * score, 2) * score).sum(2)
        logits = logits + score.mean(2) + weight * attended
    return logits
