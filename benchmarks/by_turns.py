"""Times of functions: of several by turns, and of one whose calls are sent to a device."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

Sides = dict[str, Callable[[], Any]]


def median_ms(sides: Sides, repeats: int) -> dict[str, float]:
    """Returns the median time of each side in milliseconds, run by turns after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for function in sides.values():
        function()
    for _ in range(repeats):
        for name, function in sides.items():
            began = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def milliseconds(run: Callable[[], Any], calls: int) -> float:
    """Returns the median time of a call; each of five rounds is waited for as a whole."""
    rounds = []
    jax.block_until_ready(run())
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(calls):
            last = run()
        jax.block_until_ready(last)
        rounds.append(1e3 * (time.perf_counter() - began) / calls)
    return statistics.median(rounds)
