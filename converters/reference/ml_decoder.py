"""ML-Decoder, grouped or zero-shot, in plain torch over a state dict, from the published facts.

It reads Alibaba-MIIL's names and timm's. Importing this module needs torch.

Ridnik et al., https://arxiv.org/abs/2111.12933.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def ml_decoder_logits(
    weights: Mapping[str, Tensor],
    features: Tensor,
    source: str,
    *,
    num_heads: int = 8,
    scale: float | None = None,
    words: Tensor | None = None,
) -> Tensor:
    """Returns the logits `[b, k]` in eval mode.

    Args:
      weights: the state dict.
      features: `[b, c, h, w]`.
      source: path of the head in the state dict.
      num_heads: of the attention.
      scale: of AAM's cosines; None for the plain head.
      words: `[k, w]`, the word vectors of a zero-shot head.
    """
    outer = source if f"{source}.duplicate_pooling" in weights else f"{source}.decoder"
    layer = f"{source}.decoder.layers.0"

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(number: int, x: Tensor) -> Tensor:
        name = f"{layer}.norm{number}"
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    memory = linear(f"{outer}.embed_standart", features.flatten(2).transpose(1, 2))
    memory = F.relu(memory) if scale is None else F.leaky_relu(memory, 0.2)
    if words is None:
        queries = weights[f"{outer}.query_embed.weight"]
    else:
        queries = F.relu(linear(f"{source}.wordvec_proj", words))
    queries = queries.expand(len(features), -1, -1)
    x = norm(1, queries + queries)
    stacked = [weights[f"{layer}.multihead_attn.in_proj_{kind}"] for kind in ("weight", "bias")]
    parts = zip(*(tensor.chunk(3) for tensor in stacked), strict=True)
    query, key, value = (
        F.linear(y, *part).unflatten(-1, (num_heads, -1)).transpose(1, 2)
        for y, part in zip((x, memory, memory), parts, strict=True)
    )
    read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = norm(2, x + linear(f"{layer}.multihead_attn.out_proj", read))
    x = norm(3, x + linear(f"{layer}.linear2", F.relu(linear(f"{layer}.linear1", x))))
    bias, pool = (weights[f"{outer}.duplicate_pooling{end}"] for end in ("_bias", ""))
    if words is not None:
        # One weight vector and one bias for all classes.
        return (x @ pool)[:, :, 0] + bias
    if scale is None:
        logits = torch.einsum("bgd,gdo->bgo", x, pool)
        return logits.flatten(1)[:, : len(bias)] + bias
    cosines = torch.einsum("bgd,gdo->bgo", F.normalize(x, dim=-1), F.normalize(pool, dim=1))
    return scale * (cosines.flatten(1)[:, : len(bias)] + bias)
