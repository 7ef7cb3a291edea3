"""The graph branches of AAM and ML-GCN in plain torch over a state dict, from the published facts.

Importing this module needs torch.

Prokofiev and Sovrasov, https://arxiv.org/abs/2209.06585; Chen et al.,
https://arxiv.org/abs/1904.03582.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

# Of a map [b, c, h, w], by the names of mljax.
POOLINGS = {
    "average": lambda x: x.mean((2, 3)),
    "max": lambda x: x.amax((2, 3)),
    "average_plus_max": lambda x: x.mean((2, 3)) + x.amax((2, 3)),
}


def node_outputs(weights: Mapping[str, Tensor], nodes: Tensor) -> Tensor:
    """Returns the output `[k, c]` of both layers for the vectors `[k, w]` of the classes."""
    edges = weights["A"]
    roots = torch.diag(edges.sum(1) ** -0.5)
    adjacency = roots @ edges.T @ roots
    hidden = F.leaky_relu(_layer(weights, "gc1", nodes, adjacency), 0.2)
    return _layer(weights, "gc2", hidden, adjacency)


def _layer(weights: Mapping[str, Tensor], name: str, x: Tensor, adjacency: Tensor) -> Tensor:
    if f"{name}.weight" in weights:
        return adjacency @ (x @ weights[f"{name}.weight"])
    y = x @ weights[f"{name}.W"]
    of_reader, of_read = (y @ part for part in weights[f"{name}.a"].chunk(2))
    scores = F.leaky_relu(of_reader + of_read.T, 0.2)
    scores = torch.where(adjacency > 0, scores, torch.full_like(scores, -9e15))
    return F.elu(scores.softmax(1) @ y)


def reweighted(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Returns the map `[b, c, h, w]` with AAM's weights of its channels."""
    nodes = F.leaky_relu(node_outputs(weights, weights["inp"]), 0.2)
    return features * torch.sigmoid(nodes.amax(0))[:, None, None]


def cosine_logits(pooled: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Returns the scaled cosines `[b, k]` of vectors `[b, c]` with the columns of `[c, k]`."""
    cosines = F.normalize(pooled, dim=1) @ F.normalize(weight, dim=0)
    return scale * cosines.clamp(-1, 1)
