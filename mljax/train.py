"""Trains a recipe: `python -m mljax.train --config configs/quickstart.py --workdir runs/first`.

A second call with the same workdir resumes. Exit codes: 0 done, 1 an error in the recipe, the data
or the run (its message says what to do), 143 ended by SIGTERM and, in a run of one process, 130 by
Ctrl-C, after saving a checkpoint. A second Ctrl-C ends at once.
"""

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from mljax.checkpoints.checkpoint import check_path
from mljax.config.schema import Config, load_config, override
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.devices.mesh import put_batch
from mljax.evaluate import collect_scores
from mljax.evaluation.multilabel import Evaluation, evaluate_scores, print_evaluation
from mljax.losses.prior import write_prior
from mljax.models.classifier import Arrays
from mljax.training.interruption import Termination
from mljax.training.metric_log import (
    MetricLog,
    Throughput,
    annotated_shares,
    draw_prior,
    make_progress,
)
from mljax.training.run import Run, describe, make_run, write_recipe
from mljax.training.run_checkpoints import RunCheckpoints, save_only
from mljax.training.step import TrainState

# What a run remembers besides its state: the best figure, images skipped, the last evaluation.
Progress = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Output:
    """Where a run puts what it finds; only the first process has a log."""

    workdir: Path
    checkpoints: RunCheckpoints
    log: MetricLog | None
    console: Console


class NonFiniteError(ValueError):
    """A loss or gradient that is not finite, under the policy `stop`."""


def fit(config: Config, workdir: str | Path, *, console: Console | None = None) -> Evaluation:
    """Trains `config` in `workdir`, or goes on with the run that is there, to its end.

    Returns:
      The last evaluation of the better of plain and averaged weights.

    Raises:
      ValueError: for a recipe, data or devices that do not fit together.
      NonFiniteError: see `train.non_finite`.
      SystemExit: when a checkpoint is saved, with code 143 after SIGTERM or, in a run of one
        process, 130 after Ctrl-C.
    """
    console = console or Console(quiet=jax.process_index() != 0)
    workdir = Path(workdir)
    check_path(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir {workdir}: is a file, expected a folder or a new name")
    run = make_run(config)
    checkpoints = RunCheckpoints(
        workdir / "checkpoints", run.model, config, keep=config.train.keep_checkpoints
    )
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        state, progress = run.state, {"best": None, "skipped": [], "evaluated": 0}
        if restored := checkpoints.restore(run.state):
            state, progress = restored
            if not checkpoints.tidy(workdir / "best"):
                progress["best"] = None
        start = int(state.step)
        log = None
        if jax.process_index() == 0:
            write_recipe(workdir, config, resumed=start > 0)
            log = MetricLog(workdir, resumed_step=start)
            stack.callback(log.close)
        _print_start(run, start, console)
        output = _Output(workdir=workdir, checkpoints=checkpoints, log=log, console=console)
        return _loop(run, state, progress, output)


def _loop(run: Run, state: TrainState, progress: Progress, output: _Output) -> Evaluation:
    """Steps from where `state` is to the end; evaluates, logs and saves on the way."""
    train, key = run.config.train, jax.random.key(run.config.seed)
    every = train.checkpoint_every_steps or run.steps_per_epoch
    start = saved = int(state.step)
    evaluation = None
    pending: dict[str, Any] = {}
    speed = Throughput(run.config.data.batch_size)
    with (
        Termination() as termination,
        run.train_batches(start) as batches,
        make_progress(output.console) as bar,
    ):
        task = bar.add_task("training", total=run.total_steps, completed=start, status="")
        try:
            if _evaluation_is_due(run, start) and progress["evaluated"] < start:
                # The run was ended in the midst of this evaluation.
                evaluation = _evaluate(run, state, progress, output, termination)
                output.checkpoints.save(state, progress)
            speed.start(start)
            for step in range(start + 1, run.total_steps + 1):
                termination.check()
                batch = next(batches)
                progress["skipped"] += batch["index"][~batch["valid"]].tolist()
                inputs = {k: v for k, v in batch.items() if k != "index"}
                state, metrics = run.step(state, put_batch(inputs, run.mesh), key)
                # The check waits for the step before, so that this one is already under way.
                _check_finite(pending, run, step - 1)
                pending, last = metrics, step == run.total_steps
                if output.log is not None and (step % train.log_every_steps == 0 or last):
                    _log(output.log, step, metrics, speed)
                    bar.update(task, status=f"loss {float(metrics['loss']):.4g}")
                if _evaluation_is_due(run, step):
                    _check_finite(pending, run, step)
                    evaluation = _evaluate(run, state, progress, output, termination)
                    speed.start(step)
                if step % run.steps_per_epoch == 0:
                    _write_prior(run, state, output.workdir)
                if step % every == 0 or last:
                    _save(run, state, progress, output, pending)
                    saved = step
                bar.update(task, completed=step)
            if evaluation is None:
                # The run was complete: its log has this evaluation already.
                unlogged = replace(output, log=None)
                evaluation = _evaluate(run, state, progress, unlogged, termination)
        except Exception:
            # Besides RunEndedError: the same signal may have ended the workers that make batches.
            if not termination.signal:
                raise
            if int(state.step) > saved:
                _save(run, state, progress, output, pending)
            output.checkpoints.wait()
            output.console.print(f"ended after step {int(state.step)}; the same command goes on")
            raise SystemExit(128 + termination.signal) from None
    _print_end(run, state, progress, evaluation, output)
    _print_prior(run, _write_prior(run, state, output.workdir), output)
    return evaluation


def _log(log: MetricLog, step: int, metrics: dict[str, Any], speed: Throughput) -> None:
    scalars = {f"train/{k}": float(v) for k, v in metrics.items() if k != "finite"}
    log.write(step, scalars | {"train/images_per_second": speed.rate(step)})


def _save(
    run: Run, state: TrainState, progress: Progress, output: _Output, metrics: dict[str, Any]
) -> None:
    """Starts saving a checkpoint, unless the step that `metrics` are of was not finite."""
    _check_finite(metrics, run, int(state.step))
    progress["skipped"] = _skipped_anywhere(run, progress["skipped"])
    output.checkpoints.save(state, progress)


def _evaluation_is_due(run: Run, step: int) -> bool:
    interval = run.config.eval.every_epochs * run.steps_per_epoch
    return step % interval == 0 or step == run.total_steps


def _check_finite(metrics: dict[str, Any], run: Run, step: int) -> None:
    if not metrics or bool(metrics["finite"]) or run.config.train.non_finite == "skip":
        return
    terms = {k.removeprefix("loss/"): float(v) for k, v in metrics.items() if k.startswith("loss/")}
    guilty = [f"{name} is {value}" for name, value in terms.items() if not np.isfinite(value)]
    if not guilty:
        guilty = ["all losses are finite, but a gradient or an update is not"]
    raise NonFiniteError(
        f"step {step}: {'; '.join(guilty)}. The parameters were left as they were before this "
        "step. Lower optimizer.peak_lr, look at the images of this step, or pass --set "
        "train.non_finite=skip to leave such steps out"
    )


def _skipped_anywhere(run: Run, skipped: list[int]) -> list[int]:
    """Returns the training images, by number, that were skipped as bad in any process."""
    bad = np.zeros(len(run.train), bool)
    bad[skipped] = True
    if jax.process_count() > 1 and run.config.data.bad_images == "skip":
        bad = multihost_utils.process_allgather(bad).any(axis=0)
    return np.flatnonzero(bad).tolist()


def _evaluate(
    run: Run, state: TrainState, progress: Progress, output: _Output, termination: Termination
) -> Evaluation:
    """Evaluates plain and averaged weights; keeps the network if it is the best so far."""
    step = int(state.step)
    weights: dict[str, tuple[Arrays, Arrays]] = {"plain": (state.params, state.stats)}
    if state.ema_params:
        weights["ema"] = (state.ema_params, state.ema_stats)
    with run.eval_batches() as batches:
        scores, labels, ignored, skipped = collect_scores(
            lambda images: np.stack([run.forward(*w, images) for w in weights.values()]),
            termination.between(batches),
        )
    threshold = run.config.eval.threshold
    found = {
        name: evaluate_scores(s, labels, ignored=ignored, threshold=threshold)
        for name, s in zip(weights, scores, strict=True)
    }
    figures = {name: e.mean_average_precision for name, e in found.items()}
    better = max(figures, key=lambda name: np.nan_to_num(figures[name], nan=-1.0))
    if output.log is not None:
        output.log.write(step, {f"eval/mAP_{name}": value for name, value in figures.items()})
    shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    epoch = step / run.steps_per_epoch
    partial = " over annotated labels" if found[better].partial else ""
    bad = f", {len(skipped)} bad images skipped" if skipped else ""
    output.console.print(
        f"epoch {epoch:g}, step {step}: mAP{partial} {shown}{bad}", highlight=False
    )
    best = progress["best"]
    if best is None or math.isnan(best["mAP"]) or figures[better] > best["mAP"]:
        progress["best"] = {"mAP": figures[better], "step": step, "weights": better}
        _save_best(run, weights[better], progress["best"], output.workdir)
    progress["evaluated"] = step
    return found[better]


def _write_prior(run: Run, state: TrainState, workdir: Path) -> Float[np.ndarray, " k"] | None:
    """Writes the class prior and returns it, if the run estimates one."""
    if not run.config.train.estimate_prior:
        return None
    mean = state.prior["mean"]
    if jax.process_count() > 1:
        mean = multihost_utils.process_allgather(mean, tiled=True)
    if jax.process_index() == 0:
        write_prior(workdir / "prior.csv", run.train.class_names, np.asarray(mean))
    return np.asarray(mean)


def _print_prior(run: Run, prior: Float[np.ndarray, " k"] | None, output: _Output) -> None:
    """Says where the class prior is; draws it beside the annotations if matplotlib is there."""
    if prior is None or jax.process_index() != 0:
        return
    picture = output.workdir / "prior.png"
    shares = annotated_shares(run.train.labels)
    try:
        draw_prior(picture, run.train.class_names, prior, shares)
        drawn = f", drawn in {picture}"
    except ImportError:
        drawn = "; for a picture: pip install 'mljax[plot]'"
    line = f"class prior in {output.workdir / 'prior.csv'}{drawn}"
    output.console.print(line, highlight=False, markup=False)


def _save_best(
    run: Run, arrays: tuple[Arrays, Arrays], best: dict[str, Any], workdir: Path
) -> None:
    card = (
        f"# {run.config.model.backbone.name}, {run.config.model.head.name} head\n\n"
        f"- mAP {best['mAP']:.2f} on {run.config.data.reader.name}, split "
        f"{run.config.data.eval_split} ({len(run.evaluation)} images)\n"
        f"- {best['weights']} weights of step {best['step']} of {run.total_steps}\n"
        f"- classes: {', '.join(run.evaluation.class_names)}\n"
        f"- preprocessing: {run.config.data.preprocessing}\n"
    )
    path = workdir / "best" / str(best["step"])
    save_only(path, run.network(*arrays), recipe=run.config, card=card)


def _print_start(run: Run, start: int, console: Console) -> None:
    table = Table(show_header=False, box=None)
    for name, value in describe(run).items():
        table.add_row(f"[bold]{name}", value)
    if start:
        table.add_row("[bold]resumed", f"after step {start}")
    console.print(table)


def _print_end(
    run: Run, state: TrainState, progress: Progress, evaluation: Evaluation, output: _Output
) -> None:
    console = output.console
    print_evaluation(evaluation, run.evaluation.class_names, console)
    best = progress["best"]
    console.print(
        f"best mAP {best['mAP']:.2f}: {best['weights']} weights of step {best['step']}, in "
        f"{output.workdir / 'best'}",
        highlight=False,
        markup=False,
    )
    if skipped := int(state.skipped):
        console.print(f"{skipped} steps were left out: not finite")
    if bad := progress["skipped"]:
        names = ", ".join(run.train.name(index) for index in bad[:10])
        more = ", ..." if len(bad) > 10 else ""
        console.print(
            f"{len(bad)} training images could not be read: {names}{more}",
            highlight=False,
            markup=False,
        )


def dry_run(config: Config, console: Console) -> None:
    """Builds everything, runs one step and one evaluation batch, prints what it found."""
    run = make_run(config)
    _print_start(run, 0, console)
    key = jax.random.key(config.seed)
    with run.train_batches(0) as batches:
        batch = {k: v for k, v in next(batches).items() if k != "index"}
        inputs = put_batch(batch, run.mesh)
        began = time.monotonic()
        step = run.step.lower(run.state, inputs, key).compile()
        compiled = time.monotonic()
        state, metrics = jax.block_until_ready(step(run.state, inputs, key))
        seconds = time.monotonic() - compiled
    with run.eval_batches() as batches:
        batch = next(batches)
        logits = run.forward(state.params, state.stats, batch["images"])
    table = Table(show_header=False, box=None)
    loss = {k: f"{float(v):.4g}" for k, v in metrics.items() if k.startswith("loss")}
    rows = {
        "images": f"{inputs['images'].shape} {inputs['images'].dtype}",
        "labels": f"{inputs['labels'].shape} {inputs['labels'].dtype}",
        "logits": f"{logits.shape} {logits.dtype}",
        "first step": ", ".join(f"{name} {value}" for name, value in loss.items()),
        "compilation": f"{compiled - began:.1f} s",
        "one step": f"{seconds:.2f} s",
        "all steps": f"about {timedelta(seconds=math.ceil(run.total_steps * seconds))} (h:mm:ss), "
        "without waiting for data",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}", value)
    console.print(table)
    _check_finite(metrics, run, 1)
    console.print("dry run: all parts fit; nothing was written")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    try:
        _join(arguments)
        console = Console(quiet=jax.process_index() != 0)
        config = override(load_config(arguments.config), arguments.set)
        if arguments.seed is not None:
            config = replace(config, seed=arguments.seed)
        if arguments.dry_run:
            dry_run(config, console)
        elif arguments.workdir is None:
            raise ValueError("--workdir is needed to train; --dry-run does without")
        else:
            fit(config, arguments.workdir, console=console)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _join(arguments: argparse.Namespace) -> None:
    """Joins the other processes of the run, if there are any."""
    cluster = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if cluster == (None, None, None):
        return
    if None in cluster:
        raise ValueError("--coordinator, --num-processes and --process-id belong together")
    jax.distributed.initialize(*cluster)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mljax.train", description="Trains a recipe.")
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="a recipe, as in configs/")
    add("--workdir", type=Path, metavar="DIR", help="for all output; a run there is resumed")
    add("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field")
    add("--seed", type=int, help="of initialization, order and augmentation")
    add("--dry-run", action="store_true", help="one step and one evaluation batch; writes nothing")
    group = parser.add_argument_group("several processes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num-processes", type=int, metavar="N")
    group.add_argument("--process-id", type=int, metavar="I")
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
