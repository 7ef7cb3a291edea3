"""Blocks that several networks share. Feature maps are NHWC."""

from collections.abc import Callable
from typing import Any

from mljax.config.part import table
from mljax.layers.pooling import average_plus_max_pool, average_pool, max_pool

POOLINGS: dict[str, Callable[..., Any]] = table(
    "pooling",
    {"average": average_pool, "max": max_pool, "average_plus_max": average_plus_max_pool},
)
