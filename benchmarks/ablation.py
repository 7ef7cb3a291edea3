"""AAM's training strategy in miniature, one step after the other, as table 6 of its paper.

    python -m benchmarks.ablation [--seeds 0 1 2] [--root FOLDER] [--set PATH=VALUE]

Trains a small TResNet from random weights on the embedded digits, or on the photos of a folder with
train.csv and val.csv, with one more piece in each row: ASL; sharpness-aware gradients; ML-Decoder;
its cosines with the angular margin loss, without focusing (AM) and with it (AAM). All else is the
same in all rows, seeds too. Scores are the mAP of the better of plain and averaged weights after
the last step, in percent; the spread is the standard deviation over the seeds.

Adam takes the place of SGD in all rows: from random weights SGD needs far more steps (see
configs/quickstart_aam.py). The paper's rows with weights of OpenImages and with the graph branch
are left out: the labels of the digits have no pairs that occur together more often than others.
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

from mljax import backbones, config
from mljax.config import LossConfig, Part, loss, part
from mljax.data.augment import horizontal_flip
from mljax.data.readers.digits import digits
from mljax.data.readers.image_csv import csv_table
from mljax.heads.linear import Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.losses import angular_margin_loss, asymmetric_loss
from mljax.train import fit
from mljax.training.gradients import sharpness_aware
from mljax.training.optimizer import no_bias_decay, torch_adam
from mljax.training.schedules import one_cycle

LINEAR = part(Linear)
DECODER = part(MLDecoder, embedding_size=128, num_heads=4, feed_forward_size=256)
COSINES = part(MLDecoder, scale=17.0, **DECODER.kwargs)
ASL = loss(asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05, differentiable_focus=True)
AM = loss(angular_margin_loss, margin=0.0, present_share=0.7)
AAM = loss(angular_margin_loss, margin=0.0, present_share=0.7, gamma_neg=2.0, gamma_pos=1.0)

# {row: arguments of make_config}; each row adds one piece to the row above.
ROWS = {
    "ASL": {"term": ASL, "head": LINEAR, "rho": 0.0},
    "+ SAM": {"term": ASL, "head": LINEAR, "rho": 0.05},
    "+ ML-Decoder": {"term": ASL, "head": DECODER, "rho": 0.05},
    "+ AM": {"term": AM, "head": COSINES, "rho": 0.05},
    "+ AAM": {"term": AAM, "head": COSINES, "rho": 0.05},
}


def make_config(
    root: str | None, *, term: LossConfig, head: Part, rho: float, seed: int
) -> config.Config:
    """Returns the config of a row.

    Args:
      root: a folder with train.csv and val.csv; None takes the digits.
      term: the loss.
      head: of the network.
      rho: length of the climb of the sharpness-aware gradients; 0 does without them.
      seed: of weights and batches.
    """
    photos = root is not None
    return config.Config(
        data=config.DataConfig(
            reader=part(csv_table, root=root) if photos else part(digits),
            preprocessing=config.Preprocessing(image_size=64 if photos else 48),
            augment=(part(horizontal_flip),) if photos else (),
            batch_size=32 if photos else 64,
            eval_batch_size=64 if photos else 256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m, layers=(1, 1, 1, 1), width=16), head=head
        ),
        losses=(term,),
        optimizer=config.OptimizerConfig(
            peak_lr=4e-3,
            algorithm=part(torch_adam, weight_decay=1e-4),
            groups=no_bias_decay(),
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(
            epochs=6 if photos else 3,
            ema_decay=0.95,
            gradients=(part(sharpness_aware, rho=rho),) if rho else (),
        ),
        eval=config.EvalConfig(every_epochs=100),
        seed=seed,
    )


def main() -> None:
    """Trains all rows with all seeds, prints each score and then one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation")
    parser.add_argument("--root", help="a folder with train.csv and val.csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    arguments = parser.parse_args()
    console = Console()
    runs = [(row, seed) for seed in arguments.seeds for row in ROWS]
    scores: dict[str, list[float]] = {row: [] for row in ROWS}
    seconds = dict.fromkeys(ROWS, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for row, seed in track(runs, "training", console=console, transient=True):
            chosen = make_config(arguments.root, seed=seed, **ROWS[row])
            chosen = config.override(chosen, arguments.set)
            began = time.process_time()
            figures = fit(chosen, Path(folder) / f"{row}-{seed}", console=Console(quiet=True))
            scores[row].append(figures["mAP"])
            seconds[row] += time.process_time() - began
            console.print(f"{row}, seed {seed}: mAP {figures['mAP']:.2f}", highlight=False)

    table = Table(title=f"mAP, {arguments.root or 'digits'}")
    for column in ("row", *(f"seed {seed}" for seed in arguments.seeds)):
        table.add_column(column, justify="left" if column == "row" else "right")
    for column in ("mean", "spread", "CPU seconds"):
        table.add_column(column, justify="right")
    for row, found in scores.items():
        spread = statistics.stdev(found) if len(found) > 1 else float("nan")
        cells = [f"{score:.2f}" for score in [*found, statistics.mean(found), spread]]
        table.add_row(row, *cells, f"{seconds[row]:.0f}")
    console.print(table)
    console.print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}")


if __name__ == "__main__":
    main()
