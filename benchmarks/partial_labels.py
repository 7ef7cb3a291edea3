"""Three ways to learn from hidden labels, with the same network, data, steps and seed.

    python -m benchmarks.partial_labels [--seeds 0] [--set PATH=VALUE]

Trains configs/quickstart_partial.py once a mode: `ignore` leaves unannotated labels out, `negative`
takes them as absent, `selective` takes them as absent but for the likeliest. Scores are the mAP of
the better of plain and averaged weights after the last step, in percent, on fully annotated images.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mljax.config.schema import Config, load_config, override
from mljax.train import fit

RECIPE = Path(__file__).parent.parent / "configs/quickstart_partial.py"
MODES = ("ignore", "negative", "selective")


def train(config: Config, mode: str, seed: int, folder: Path) -> tuple[float, float]:
    """Returns the mAP in percent and the seconds that it took."""
    config = override(config, [f"losses.0.kwargs.mode={mode}", f"seed={seed}"])
    began = time.monotonic()
    evaluation = fit(config, folder / f"{mode}-{seed}", console=Console(quiet=True))
    return evaluation.mean_average_precision, time.monotonic() - began


def main() -> None:
    """Runs all modes and prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partial_labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    console = Console()
    config = override(load_config(RECIPE), arguments.set)
    runs = [(mode, seed) for seed in arguments.seeds for mode in MODES]
    found: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for mode, seed in track(runs, "training", console=console, transient=True):
            found[mode].append(train(config, mode, seed, Path(folder)))
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
