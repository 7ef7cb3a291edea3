"""Blocks that several networks share. Feature maps are NHWC."""

from collections.abc import Callable
from typing import Any

from mljax.config.part import table
from mljax.layers.graph import GraphAttention, GraphConvolution
from mljax.layers.pooling import average_plus_max_pool, average_pool, max_pool

POOLINGS: dict[str, Callable[..., Any]] = table(
    "pooling",
    {"average": average_pool, "max": max_pool, "average_plus_max": average_plus_max_pool},
)
GRAPH_LAYERS: dict[str, Callable[..., Any]] = table(
    "graph layer",
    {"graph_convolution": GraphConvolution, "graph_attention": GraphAttention},
)
