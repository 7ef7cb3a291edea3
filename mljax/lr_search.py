"""Searches for a learning rate: `python -m mljax.lr_search --config quickstart`.

Prints a suggestion for `optimizer.peak_lr` and draws what it rests on. `--method range` takes one
epoch of steps whose rate grows and looks at the loss; `trials` and `grid` train for some epochs at
each of several rates and look at `eval.best_by`. The rate is constant within a trial; gradient
wrappers, groups and losses are the config's. Nothing is trained on: the network found is dropped.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

import mljax.evaluators  # noqa: F401
from mljax.config.load import load_config, override
from mljax.config.part import part, use_plugins
from mljax.config.schema import Config
from mljax.data.pipeline import Batches
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.devices.mesh import put_batch
from mljax.evaluation.pictures import make_figure
from mljax.evaluation.weights import better_weights, evaluate_weights
from mljax.terminal.command import add_plugin_option, add_set_option, run_command
from mljax.training.preparation import Training, prepare
from mljax.training.rate_search import RateCurve, range_test, search_by_trials
from mljax.training.schedules import constant
from mljax.training.state import TrainState


def search(config: Config, console: Console, *, method: str, **kwargs: Any) -> RateCurve:  # noqa: ANN401
    """Returns what a search found; nothing is written.

    Args:
      config: of a run; its schedule, stopping rule and average are left out.
      console: for people.
      method: `range`, `trials` or `grid`.
      kwargs: `epochs` of a trial, at least 1, and arguments of `range_test` or `search_by_trials`;
        the range test takes an epoch of steps unless `steps` says otherwise.

    Raises:
      ValueError: for what does not fit in the config, or numbers out of their range.
      ImportError: for trials without optuna.
    """
    config = replace(
        config,
        schedule=part(constant),
        train=replace(config.train, ema_decay=0.0, stop=None),
    )
    training = prepare(config)
    epochs = kwargs.pop("epochs", 10)
    if method == "range":
        kwargs = {"steps": training.steps_per_epoch, **kwargs}
        with training.train_batches(start_step=0) as batches:
            steps = _Steps(training, batches)
            return range_test(lambda rate: float(steps.take(rate)["loss"]), **kwargs)

    def scores_of(rate: float) -> Iterator[float]:
        for epoch, score in enumerate(_train_with(training, rate, epochs)):
            shown = f"rate {rate:g}, epoch {epoch + 1}: {config.eval.best_by} {score:.2f}"
            console.print(shown, highlight=False)
            yield score

    return search_by_trials(scores_of, whole_grid=method == "grid", **kwargs)


class _Steps:
    """Steps of a run from its beginning, each with its own rate."""

    def __init__(self, training: Training, batches: Batches) -> None:
        self._training, self._batches = training, batches
        # A step donates its state; the first one is needed for the next trial.
        self.state: TrainState = training.pack(jax.tree.map(jnp.copy, training.state))

    def take(self, rate: float) -> dict[str, Any]:
        training = self._training
        batch = {name: array for name, array in next(self._batches).items() if name != "index"}
        inputs = put_batch(batch, training.mesh)
        key = jax.random.key(training.config.seed)
        self.state, metrics = training.step(self.state, inputs, key, {"learning_rate": rate})
        return metrics


def _train_with(training: Training, rate: float, epochs: int) -> Iterator[float]:
    """Trains from the beginning with one rate; yields the figure after each epoch."""
    config = training.config
    classes = replace(training.evaluation.classes, threshold=config.eval.threshold)
    with training.train_batches(start_step=0) as batches:
        steps = _Steps(training, batches)
        for _ in range(epochs):
            for _ in range(training.steps_per_epoch):
                steps.take(rate)
            state = training.unpack(steps.state)
            statistics = state.statistics | training.of_classes
            networks = {
                "plain": lambda images, p=state.params, s=statistics: training.forward(p, s, images)
            }
            with training.eval_batches() as evaluated:
                found = evaluate_weights(networks, training.parts.evaluators, evaluated, classes)
            # What is undefined is as bad as can be.
            yield better_weights(found, config.eval.best_by)[1] or 0.0


def draw(curve: RateCurve, path: Path, *, value: str) -> None:
    """Draws a search; the line is at its suggestion.

    Args:
      curve: of a search.
      path: of the picture; its suffix says which kind.
      value: what the values are, in words.

    Raises:
      ImportError: without matplotlib.
    """
    figure = make_figure((6, 4))
    axes = figure.subplots()
    pairs = sorted(zip(curve.rates, curve.values, strict=True))
    axes.semilogx(*zip(*pairs, strict=True), marker="." if len(pairs) < 100 else None)
    axes.axvline(curve.suggestion, color="tab:red", label=f"{curve.suggestion:g}")
    axes.set(xlabel="learning rate", ylabel=value)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    use_plugins(arguments.plugin)
    console = Console()
    config = override(load_config(arguments.config), arguments.set)
    ranges = arguments.method == "range"
    low, high = (1e-5, 1.0) if ranges else (1e-5, 1e-3)
    given = {"low": arguments.low or low, "high": arguments.high or high}
    names = ("steps",) if ranges else ("step", "trials", "epochs")
    values = {name: getattr(arguments, name) for name in names}
    given |= {name: value for name, value in values.items() if value is not None}
    curve = search(config, console, method=arguments.method, **given)
    console.print(f"suggestion: --set optimizer.peak_lr={curve.suggestion:g}", highlight=False)
    value = "smoothed loss" if ranges else config.eval.best_by
    draw(curve, arguments.picture, value=value)
    console.print(f"written to {arguments.picture}", highlight=False, markup=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.lr_search", description="Searches for a learning rate."
    )
    add = parser.add_argument
    add("--config", required=True, metavar="NAME[:ARGUMENT=VALUE,...]", help="as for train")
    text = "of growing rates within an epoch (range), or short trainings (trials, grid)"
    add("--method", choices=("range", "trials", "grid"), default="range", help=text)
    add("--low", type=float, help="the lowest rate; default: 1e-5")
    add("--high", type=float, help="the highest rate; default: 1 for range, else 1e-3")
    add("--steps", type=int, help="of the range test; default: an epoch")
    add("--step", type=float, help="between two rates of trials; default: 1e-5")
    add("--trials", type=int, help="default: 15")
    add("--epochs", type=int, help="of each trial; default: 10")
    add("--picture", type=Path, default=Path("lr_search.png"), metavar="FILE", help="of the curve")
    add_set_option(parser)
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
