"""Trains a config: `python -m mljax.train --config quickstart --workdir runs/first`.

A second call with the same workdir resumes. Exit codes: 0 done, 1 an error in the config, the data
or the run (its message says what to do), and after saving a checkpoint 143 ended by SIGTERM, 129 by
SIGHUP, 130 by Ctrl-C; in runs of several processes 143 for all of them. While nothing needs saving,
a signal ends the run at once; so does a second Ctrl-C.

A run that is killed goes on from its last sealed checkpoint. Checkpoints are written in the
background while the training goes on, so it can lose the steps of up to two intervals.
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
from flax import nnx
from rich.console import Console

from mljax.checkpoints.card import training_card
from mljax.checkpoints.checkpoint import check_path
from mljax.config.load import load_config, override, write_config
from mljax.config.part import use_plugins
from mljax.config.schema import Config
from mljax.config.shipped import print_configs
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.devices.mesh import put_batch
from mljax.devices.processes import join_processes
from mljax.evaluation.weights import (
    Found,
    better_weights,
    evaluate_weights,
    scalars,
    show_figure,
    shown,
)
from mljax.models.arrays import Arrays, merge_model
from mljax.terminal.command import add_plugin_option, add_set_option, run_command
from mljax.training.interruption import Interruption
from mljax.training.loop import Loop
from mljax.training.metric_log import MetricLog
from mljax.training.preparation import Training, prepare
from mljax.training.progress import Best, Progress
from mljax.training.run_checkpoints import RunCheckpoints, save_only, try_saving
from mljax.training.schedules import hyperparameters
from mljax.training.state import TrainState
from mljax.training.step import check_finite
from mljax.training.stopping import restore_rules, update_rules
from mljax.training.summary import closing_lines, print_table
from mljax.training.trackers import draw_trackers, save_trackers
from mljax.training.workdir import clear, hold, keep_log, left_as_it_was

# ---- the run


def fit(
    config: Config,
    workdir: str | Path,
    *,
    console: Console | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Trains `config` in `workdir`, or goes on with the run that is there, to its end.

    Args:
      config: of the run.
      workdir: for all output; only one run at a time can use it.
      console: for people.
      restart: begin at step 0; what is there is moved to `before-restart` in the workdir.

    Returns:
      The figures of the last evaluation of the better of plain and averaged weights, such as
      `mAP` in percent.

    Raises:
      ValueError: for a config, data or devices that do not fit together, for a workdir that
        another run holds, or one with checkpoints of which none can be used.
      NonFiniteError: see `train.non_finite`.
      OSError: for what cannot be read or written; the steps since the last checkpoint are saved
        first, where that can be done.
      SystemExit: when a checkpoint is saved, with code 143 after SIGTERM, 129 after SIGHUP, 130
        after Ctrl-C.
    """
    console = console or Console(quiet=jax.process_index() != 0)
    workdir = Path(workdir)
    check_path(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir {workdir}: is a file, expected a folder or a new name")
    training = prepare(config)
    with contextlib.ExitStack() as stack:
        # Entered first, so that a signal is heard until the last checkpoint is sealed.
        interruption = stack.enter_context(Interruption())
        stack.enter_context(hold(workdir))
        if restart and (aside := clear(workdir)):
            console.print(f"the run before is in {aside}", highlight=False, markup=False)
        folder = workdir / "checkpoints"
        try_saving(folder, training.model, config)
        checkpoints = RunCheckpoints(
            folder, training.model, config, keep=config.train.keep_checkpoints
        )
        stack.callback(checkpoints.close)
        stack.callback(training.deep_images.close)
        state, progress = training.state, Progress()
        if restored := checkpoints.restore(training.state):
            state, progress = restored
            if not checkpoints.tidy(workdir / "best"):
                progress = replace(progress, best=None)
            restore_rules(training.rules, progress.states)
            # A rule that is gone stops nothing any more.
            progress = replace(progress, stopped=progress.stopped and config.train.stop is not None)
        start = int(state.step)
        log = None
        if jax.process_index() == 0:
            if checkpoints.set_aside:
                keep_log(workdir)
            if line := write_config(workdir / "config.json", config, resumed=start > 0):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            log = MetricLog(workdir, resumed_step=start)
            stack.callback(log.close)
        resumed = {"resumed": f"after step {start}"} if start else {}
        print_table(training.description | resumed, console)

        training.compile_forward(state, console)
        keeper = _Keeper(training=training, workdir=workdir, log=log, console=console)
        loop = Loop(
            step=training.step,
            state=training.pack(state),
            unpack=training.unpack,
            progress=progress,
            schedule=training.schedule,
            key=jax.random.key(config.seed),
            mesh=training.mesh,
            train=config.train,
            steps_per_epoch=training.steps_per_epoch,
            total_steps=training.total_steps,
            num_records=len(training.train),
            name_of=training.train.name,
            evaluate=keeper.evaluate_and_keep,
            evaluate_every_steps=config.eval.every_epochs * training.steps_per_epoch,
            at_epoch=keeper.save_trackers,
            checkpoints=checkpoints,
            log=log,
            batch_size=config.data.batch_size,
            program=f"step of {training.description['network']}, {training.description['input']}",
            console=console,
        )
        loop.go(training.train_batches, interruption)
        return keeper.finish(training.unpack(loop.state), loop.progress, interruption)


@dataclass(kw_only=True)
class _Keeper:
    """Evaluates, and keeps the best network, the figures, and what the trackers found."""

    training: Training
    workdir: Path
    log: MetricLog | None
    console: Console
    found: dict[str, Found] | None = None

    def evaluate(self, state: TrainState, interruption: Interruption) -> dict[str, Found]:
        """Runs the plain and the averaged weights over the evaluated split."""
        training = self.training
        networks = {
            name: lambda images, pair=pair: training.forward(
                pair[0], pair[1] | training.of_classes, images
            )
            for name, pair in state.weights.items()
        }
        threshold = training.config.eval.threshold
        classes = replace(training.evaluation.classes, threshold=threshold)
        with training.eval_batches() as batches:
            return evaluate_weights(
                networks, training.parts.evaluators, interruption.between(batches), classes
            )

    def evaluate_and_keep(
        self, state: TrainState, progress: Progress, interruption: Interruption
    ) -> Progress:
        """Evaluates, logs, prints, keeps the best network, and asks the stopping rule."""
        training, step = self.training, int(state.step)
        best_by = training.config.eval.best_by
        # Not two tables of scores at a time.
        self.found = None
        self.found = self.evaluate(state, interruption)
        if self.log is not None:
            self.log.write(step, scalars(self.found))
        epoch = step / training.steps_per_epoch
        line = f"epoch {epoch:g}, step {step}: {shown(self.found, best_by)}"
        self.console.print(line, highlight=False)
        better, figure = better_weights(self.found, best_by)
        best = progress.best
        if best is None or best.figure is None or (figure is not None and figure > best.figure):
            best = Best(figure=figure, step=step, weights=better)
            self._save_best(state.weights[better], best)
        stopped, states = update_rules(training.rules, self.found[better].figures)
        if stopped:
            self.console.print(f"step {step}: the stopping rule ends the run")
        return replace(progress, best=best, evaluated=step, stopped=stopped, states=states)

    def save_trackers(self, state: TrainState) -> None:
        """Writes what the trackers have so far."""
        training = self.training
        save_trackers(training.parts.trackers, state.trackers, training.train.classes, self.workdir)

    def finish(
        self, state: TrainState, progress: Progress, interruption: Interruption
    ) -> dict[str, Any]:
        """Prints how the run ended; returns the figures of the better weights."""
        training = self.training
        if self.found is None:
            # The run was complete: its log has this evaluation already.
            self.found = self.evaluate(state, interruption)
        better, _ = better_weights(self.found, training.config.eval.best_by)
        # The first one's, the main result, last: nearest to the line that follows.
        for evaluator in reversed(self.found[better].evaluators):
            evaluator.show(self.console)
        lines = closing_lines(
            progress,
            best_by=training.config.eval.best_by,
            folder=self.workdir / "best",
            skipped_steps=int(state.skipped),
        )
        for line in lines:
            self.console.print(line, highlight=False, markup=False)
        self.save_trackers(state)
        tracked = training.parts.trackers, state.trackers, training.train.classes
        draw_trackers(*tracked, self.workdir, self.console)
        return self.found[better].figures

    def _save_best(self, weights: tuple[Arrays, Arrays], best: Best) -> None:
        training, config = self.training, self.training.config
        params, statistics = weights
        graph = nnx.graphdef(training.evaluated)
        model = merge_model(graph, params, statistics | training.of_classes)
        model.class_names = training.evaluated.class_names
        model.preprocessing = training.evaluated.preprocessing
        card = training_card(
            config,
            figure=f"{config.eval.best_by} {show_figure(best.figure)}",
            images=len(training.evaluation),
            weights=f"{best.weights} weights of step {best.step} of {training.total_steps}",
            class_names=training.evaluation.class_names,
        )
        save_only(self.workdir / "best" / str(best.step), model, config=config, card=card)


def dry_run(config: Config, console: Console, *, workdir: Path | None = None) -> None:
    """Builds everything, runs two steps and one evaluation batch, prints what it found.

    Args:
      config: of a run.
      console: for people.
      workdir: whether a checkpoint can be written there is tried too; nothing is left behind.
    """
    # Resized images would stay.
    training = prepare(replace(config, data=replace(config.data, cache=None)))
    if workdir is not None:
        with left_as_it_was(workdir / "checkpoints"):
            try_saving(workdir / "checkpoints", training.model, config)
    print_table(training.description, console)
    key, rates = jax.random.key(config.seed), hyperparameters(training.schedule, 0)
    with training.train_batches(start_step=0) as batches:
        batch = {k: v for k, v in next(batches).items() if k != "index"}
        inputs = put_batch(batch, training.mesh)
        began = time.monotonic()
        state = training.pack(training.state)
        step = training.step.lower(state, inputs, key, rates).compile()
        compilation = time.monotonic() - began
        state, metrics = jax.block_until_ready(step(state, inputs, key, rates))
        # The second step is timed: the first one also pays for memory and threads.
        began = time.monotonic()
        state, _ = jax.block_until_ready(step(state, inputs, key, rates))
        seconds = time.monotonic() - began
    with training.eval_batches() as batches:
        state = training.unpack(state)
        statistics = state.statistics | training.of_classes
        outputs = training.forward(state.params, statistics, next(batches)["images"])
    losses = {k: f"{float(v):.4g}" for k, v in metrics.items() if k.startswith("loss")}
    duration = timedelta(seconds=math.ceil(training.total_steps * seconds))
    rows = {
        "images": f"{inputs['images'].shape} {inputs['images'].dtype}",
        "labels": f"{inputs['labels'].shape} {inputs['labels'].dtype}",
        **{name: f"{array.shape} {array.dtype}" for name, array in outputs.items()},
        "first step": ", ".join(f"{name} {value}" for name, value in losses.items()),
        "compilation": f"{compilation:.1f} s",
        "one step": f"{seconds:.2f} s",
        "all steps": f"about {duration} (h:mm:ss), without waiting for data",
    }
    print_table(rows, console)
    check_finite(metrics, 1, config.train.non_finite)
    tried = f", a checkpoint can be saved in {workdir}" if workdir is not None else ""
    line = f"dry run: all parts fit{tried}; nothing was written"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.list_configs:
        print_configs(Console())
        return
    if arguments.config is None:
        raise ValueError("--config is needed; --list-configs lists those that ship")
    join_processes(
        arguments.coordinator,
        arguments.num_processes,
        arguments.process_id,
        distributed=arguments.distributed,
    )
    use_plugins(arguments.plugin)
    console = Console(quiet=jax.process_index() != 0)
    config = override(load_config(arguments.config), arguments.set)
    if arguments.seed is not None:
        config = replace(config, seed=arguments.seed)
    if arguments.dry_run:
        dry_run(config, console, workdir=arguments.workdir)
    elif arguments.workdir is None:
        raise ValueError("--workdir is needed to train; --dry-run does without")
    else:
        fit(config, arguments.workdir, console=console, restart=arguments.restart)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mljax.train", description="Trains a config.")
    add = parser.add_argument
    text = "a file, or a config that ships, as quickstart or asl/coco:size=l"
    add("--config", metavar="NAME[:ARGUMENT=VALUE,...]", help=text)
    add("--list-configs", action="store_true", help="print the configs that ship")
    add("--workdir", type=Path, metavar="DIR", help="for all output; a run there is resumed")
    add_set_option(parser)
    add("--seed", type=int, help="of initialization, order and augmentation")
    add(
        "--restart",
        action="store_true",
        help="begin at step 0; the run in DIR is moved to DIR/before-restart",
    )
    text = "two steps, one evaluation batch, an empty checkpoint in DIR; leaves nothing behind"
    add("--dry-run", action="store_true", help=text)
    add_plugin_option(parser)
    group = parser.add_argument_group("several processes")
    text = "find the others under SLURM, Open MPI, Kubernetes (JobSet) or on a TPU pod"
    group.add_argument("--distributed", action="store_true", help=text)
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num-processes", type=int, metavar="N")
    group.add_argument("--process-id", type=int, metavar="I")
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
