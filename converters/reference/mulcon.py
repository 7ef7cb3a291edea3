"""MulCon's label attention and classifiers in plain torch, written from the published facts.

Importing this module needs torch.

Dao et al., https://arxiv.org/abs/2107.11626.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def mulcon_logits(weights: Mapping[str, Tensor], features: Tensor, *, num_heads: int = 4) -> Tensor:
    """Returns the logits `[b, k]`.

    Args:
      weights: of all networks, under `netA.` and `netC.`.
      features: `[b, c, h, w]`.
      num_heads: of every attention block.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" not in weights:
            return x
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def block(name: str, queries: Tensor, memory: Tensor) -> Tensor:
        projected = linear(f"{name}.fc_q", queries)
        width = projected.shape[-1]
        # Heads stand on the batch axis, one after another.
        query, key, value = (
            torch.cat(x.split(width // num_heads, 2))
            for x in (projected, linear(f"{name}.fc_k", memory), linear(f"{name}.fc_v", memory))
        )
        attended = torch.softmax(query @ key.transpose(1, 2) / width**0.5, 2)
        x = torch.cat((query + attended @ value).split(len(queries)), 2)
        x = norm(f"{name}.ln0", x)
        return norm(f"{name}.ln1", x + F.relu(linear(f"{name}.fc_o", x)))

    tokens = features.flatten(2).transpose(1, 2)
    tokens = block("netA.sab1.mab", tokens, tokens)
    tokens = block("netA.sab2.mab", tokens, tokens)
    labels = block("netA.mab", weights["netA.I"].expand(len(features), -1, -1), tokens)
    labels = block("netA.sab3.mab", labels, labels)
    found = [linear(f"netC.{n}", labels[:, n]) for n in range(labels.shape[1])]
    return torch.cat(found, 1)
