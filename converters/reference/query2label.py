"""Query2Label's head in plain torch over a state dict, written from the published facts.

It reads the names of SlongLiu/query2labels and of tosfaq/deep-object-reid. Importing this module
needs torch.

Liu et al., https://arxiv.org/abs/2107.10834.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def query2label_logits(
    weights: Mapping[str, Tensor], features: Tensor, *, num_heads: int = 4, pre_norm: bool = False
) -> Tensor:
    """Returns the logits `[b, k]` in eval mode.

    Args:
      weights: the state dict.
      features: `[b, c, h, w]`.
      num_heads: of every attention.
      pre_norm: normalize before each branch.
    """
    if "input_proj.weight" in weights:
        features = F.conv2d(features, weights["input_proj.weight"], weights["input_proj.bias"])
    _, channels, height, width = features.shape
    places = _positions(channels, height, width, features.dtype).flatten(1).T
    memory = features.flatten(2).transpose(1, 2)

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attend(name: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        stacked = [weights[f"{name}.in_proj_{kind}"] for kind in ("weight", "bias")]
        parts = zip(*(tensor.chunk(3) for tensor in stacked), strict=True)
        query, key, value = (
            F.linear(x, *part).unflatten(-1, (num_heads, -1)).transpose(1, 2)
            for x, part in zip((query, key, value), parts, strict=True)
        )
        read = F.scaled_dot_product_attention(query, key, value)
        return linear(f"{name}.out_proj", read.transpose(1, 2).flatten(2))

    def feed_forward(layer: str, x: Tensor) -> Tensor:
        hidden = linear(f"{layer}.linear1", x)
        slope = weights.get(f"{layer}.activation.weight", hidden.new_zeros(1))
        return linear(f"{layer}.linear2", F.prelu(hidden, slope))

    def step(x: Tensor, norm_name: str, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if pre_norm:
            return x + branch(norm(norm_name, x))
        return norm(norm_name, x + branch(x))

    number = 0
    while f"transformer.encoder.layers.{number}.linear1.weight" in weights:
        layer = f"transformer.encoder.layers.{number}"
        memory = step(
            memory,
            f"{layer}.norm1",
            lambda x, layer=layer: attend(f"{layer}.self_attn", x + places, x + places, x),
        )
        memory = step(memory, f"{layer}.norm2", lambda x, layer=layer: feed_forward(layer, x))
        number += 1
    if "transformer.encoder.norm.weight" in weights:
        memory = norm("transformer.encoder.norm", memory)
    queries = weights["query_embed.weight"].expand(len(features), -1, -1)
    x = torch.zeros_like(queries)
    number = 0
    while f"transformer.decoder.layers.{number}.linear1.weight" in weights:
        layer = f"transformer.decoder.layers.{number}"
        if f"{layer}.self_attn.in_proj_weight" in weights:
            x = step(
                x,
                f"{layer}.norm1",
                lambda x, layer=layer: attend(f"{layer}.self_attn", x + queries, x + queries, x),
            )
        x = step(
            x,
            f"{layer}.norm2",
            lambda x, layer=layer: attend(
                f"{layer}.multihead_attn", x + queries, memory + places, memory
            ),
        )
        x = step(x, f"{layer}.norm3", lambda x, layer=layer: feed_forward(layer, x))
        number += 1
    x = norm("transformer.decoder.norm", x)
    name, bias = ("fc.W", "fc.b") if "fc.W" in weights else ("fc.weight", "fc.bias")
    return (x * weights[name]).sum(-1) + weights[bias]


def _positions(channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Returns the sine table `[c, h, w]`, in the float32 in which checkpoints hold it."""
    half = channels // 2
    table = torch.empty(channels, height, width)
    for offset, length, shape in ((0, height, (-1, 1)), (half, width, (1, -1))):
        angles = torch.arange(1, length + 1, dtype=torch.float64) / (length + 1e-6) * 2 * math.pi
        for feature in range(half):
            wave = torch.cos if feature % 2 else torch.sin
            values = wave(angles / 10000 ** (2 * (feature // 2) / half))
            table[offset + feature] = values.reshape(shape)
    return table.to(dtype)
