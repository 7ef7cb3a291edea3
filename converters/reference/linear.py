"""What all references share: tensors, and the linear and bottleneck heads.

Importing this module needs torch.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Returns the state dict as torch tensors."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def linear_logits(weights: Mapping[str, Tensor], features: Tensor, source: str) -> Tensor:
    """Returns the logits `[b, k]` of a linear or bottleneck head under the names `source`.

    Without such a head in the weights, it is the mean of the features over space `[b, c]`.
    """
    pooled = features.mean((2, 3))
    if not any(name.startswith(f"{source}.") for name in weights):
        return pooled
    if f"{source}.FC.weight" in weights:
        embedded = _linear(weights, f"{source}.embedding_generator.0", pooled)
        return _linear(weights, f"{source}.FC", embedded)
    return _linear(weights, source, pooled)


def projections(weights: Mapping[str, Tensor], features: Tensor, source: str) -> Tensor:
    """Returns SupContrast's projections `[b, d]`: of a head `mlp`, or of one `linear`."""
    x = features.mean((2, 3))
    if f"{source}.weight" in weights:
        return F.normalize(_linear(weights, source, x), dim=1)
    x = F.relu(_linear(weights, f"{source}.0", x))
    return F.normalize(_linear(weights, f"{source}.2", x), dim=1)


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
