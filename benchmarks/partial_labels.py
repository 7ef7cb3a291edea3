"""Three ways to learn from hidden labels, with the same network, data, steps and seed.

    python -m benchmarks.partial_labels [--seeds 0] [--set PATH=VALUE]

Trains the config quickstart_partial once a mode: `ignore` leaves unannotated labels out, `negative`
takes them as absent, `selective` takes them as absent but for the likeliest. Scores are the mAP of
the better of plain and averaged weights after the last step, in percent, on fully annotated images.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mljax.config import Config, load_config, override
from mljax.train import fit

MODES = ("ignore", "negative", "selective")


def make_config(mode: str, assignments: Sequence[str]) -> Config:
    """Returns the config of a mode with the changes of the command."""
    return override(load_config(f"quickstart_partial:mode={mode}"), assignments)


def train(config: Config, folder: Path) -> tuple[float, float]:
    """Returns the mAP in percent and the seconds that it took."""
    began = time.monotonic()
    figures = fit(config, folder, console=Console(quiet=True))
    return figures["mAP"], time.monotonic() - began


def main() -> None:
    """Runs all modes and prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partial_labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    console = Console()
    configs = {mode: make_config(mode, arguments.set) for mode in MODES}
    runs = [(mode, seed) for seed in arguments.seeds for mode in MODES]
    found: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for mode, seed in track(runs, "training", console=console, transient=True):
            config = dataclasses.replace(configs[mode], seed=seed)
            found[mode].append(train(config, Path(folder) / f"{mode}-{seed}"))
    config = configs[MODES[0]]
    kwargs = config.data.reader.kwargs
    table = Table(title=f"{kwargs['method']} {kwargs['amount']}, {config.train.epochs:g} epochs")
    table.add_column("mode")
    for seed in arguments.seeds:
        table.add_column(f"mAP, seed {seed}", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("seconds", justify="right")
    for mode, results in found.items():
        scores = [score for score, _ in results]
        cells = [f"{score:.2f}" for score in [*scores, statistics.mean(scores)]]
        table.add_row(mode, *cells, f"{sum(seconds for _, seconds in results):.0f}")
    console.print(table)
    console.print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}")


if __name__ == "__main__":
    main()
