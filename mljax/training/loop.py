"""The loop over the steps of a run: step, log, evaluate, save, end early."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from rich.console import Console

from mljax.config.schema import TrainConfig
from mljax.data.pipeline import Batches
from mljax.devices.ahead import begin_ahead
from mljax.devices.compilation_cache import compiling
from mljax.devices.mesh import put_batch
from mljax.terminal.progress import make_progress
from mljax.training.interruption import Interruption
from mljax.training.metric_log import MetricLog, Throughput
from mljax.training.progress import Progress, bad_in_any_process, name_all
from mljax.training.run_checkpoints import RunCheckpoints
from mljax.training.schedules import Schedule, hyperparameters
from mljax.training.state import TrainState
from mljax.training.step import NonFiniteError, check_finite

# Batches that are sent to the devices before the step that takes them.
_AHEAD = 2

# Evaluates a state and keeps what is to be kept of it.
Evaluate = Callable[[TrainState, Progress, Interruption], Progress]


@dataclass(kw_only=True)
class Loop:
    """A run between its first step and its last.

    Attributes:
      step: jitted `step(state, batch, key, hyperparameters)`; it donates the state.
      state: the arrays; a new object after each step.
      progress: how far the run has come.
      schedule: hyperparameters over the steps.
      key: folded with the step's number in each step.
      mesh: the devices.
      train: the numbers of the loop.
      steps_per_epoch: optimizer steps.
      total_steps: optimizer steps of the whole run.
      num_records: of the training split.
      name_of: number of a training record to what identifies it.
      evaluate: called when an evaluation is due.
      evaluate_every_steps: when that is, besides the last step.
      at_epoch: called with the state at the end of each epoch.
      checkpoints: of the run.
      log: only the first process has one.
      batch_size: images of all processes in a step.
      program: what is compiled at the first step, in words.
      console: for people.
    """

    step: Any
    state: TrainState
    progress: Progress
    schedule: Schedule
    key: Array
    mesh: Mesh
    train: TrainConfig
    steps_per_epoch: int
    total_steps: int
    num_records: int
    name_of: Callable[[int], str]
    evaluate: Evaluate
    evaluate_every_steps: int
    at_epoch: Callable[[TrainState], None]
    checkpoints: RunCheckpoints
    log: MetricLog | None
    batch_size: int
    program: str
    console: Console
    _metrics: dict[str, Any] = field(default_factory=dict)
    _saved: int = 0
    _bad: list[int] = field(default_factory=list)

    def go(self, batches: Callable[..., Batches], interruption: Interruption) -> None:
        """Takes all steps from where the state is.

        Args:
          batches: `batches(start_step=0)`: this process's batches from a step on.
          interruption: asked before each step.

        Raises:
          NonFiniteError: see `train.non_finite`.
          SystemExit: after a checkpoint is saved, if the run was asked to end.
          Exception: of data, disk or evaluation, after a checkpoint of the last step is saved.
        """
        start = self._saved = int(self.state.step)
        with batches(start_step=start) as source, make_progress(self.console) as bar:
            sent = begin_ahead(source, self._send, _AHEAD)
            task = bar.add_task("training", total=self.total_steps, completed=start, status="")
            try:
                if self._evaluation_is_due(start) and self.progress.evaluated < start:
                    # The run was ended in the midst of this evaluation.
                    self.progress = self.evaluate(self.state, self.progress, interruption)
                    self._save()
                speed = Throughput(self.batch_size, start)
                for step in range(start + 1, self.total_steps + 1):
                    if self.progress.stopped:
                        break
                    interruption.check()
                    batch, inputs = next(sent)
                    first = step == start + 1
                    shown = compiling(bar, task, self.program, then="training") if first else None
                    with shown or contextlib.nullcontext():
                        self._take(step, batch, inputs)
                    interruption.at_once = False
                    if self.log is not None and self._logging_is_due(step):
                        loss = self._write_log(self.log, step, speed)
                        bar.update(task, status=f"loss {loss:.4g}")
                    if self._evaluation_is_due(step):
                        self._check()
                        self.progress = self.evaluate(self.state, self.progress, interruption)
                        speed = Throughput(self.batch_size, step)
                    if step % self.steps_per_epoch == 0:
                        self.at_epoch(self.state)
                    if self._saving_is_due(step):
                        self._save()
                    bar.update(task, completed=step)
            except Exception as error:
                # Besides RunEndedError: the same signal may have ended the workers.
                if interruption.signal:
                    self._end(interruption.signal)
                if not isinstance(error, NonFiniteError):
                    self._rescue()
                raise

    def _send(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        return put_batch({k: v for k, v in batch.items() if k != "index"}, self.mesh)

    def _take(
        self, step: int, batch: Mapping[str, np.ndarray], inputs: Mapping[str, Array]
    ) -> None:
        self._bad += batch["index"][~batch["valid"]].tolist()
        values = hyperparameters(self.schedule, step - 1)
        self.state, metrics = self.step(self.state, inputs, self.key, values)
        # The check waits for the step before, so that this one is already under way.
        check_finite(self._metrics, step - 1, self.train.non_finite)
        self._metrics = metrics

    def _write_log(self, log: MetricLog, step: int, speed: Throughput) -> float:
        """Writes what is known of the last step; returns its loss."""
        scalars = {f"train/{k}": float(v) for k, v in self._metrics.items() if k != "finite"}
        values = hyperparameters(self.schedule, step - 1)
        scalars |= {f"train/{name}": value for name, value in values.items()}
        log.write(step, scalars | {"train/images_per_second": speed.rate(step)})
        return scalars["train/loss"]

    def _logging_is_due(self, step: int) -> bool:
        return step % self.train.log_every_steps == 0 or step == self.total_steps

    def _evaluation_is_due(self, step: int) -> bool:
        return step % self.evaluate_every_steps == 0 or step == self.total_steps

    def _saving_is_due(self, step: int) -> bool:
        every = self.train.checkpoint_every_steps or self.steps_per_epoch
        return step % every == 0 or step == self.total_steps or self.progress.stopped

    def _check(self) -> None:
        check_finite(self._metrics, int(self.state.step), self.train.non_finite)

    def _save(self) -> None:
        """Starts saving a checkpoint, unless the last step was not finite."""
        self._check()
        bad = bad_in_any_process(self._bad, self.num_records)
        self._bad.clear()
        names = name_all(self.progress.bad_images, bad, self.name_of)
        self.progress = replace(self.progress, bad_images=names)
        self.checkpoints.save(self.state, self.progress)
        self._saved = int(self.state.step)

    def _end(self, signal: int) -> None:
        step = int(self.state.step)
        if step > self._saved:
            self._save()
        self.checkpoints.wait()
        self.console.print(f"ended after step {step}; the same command goes on")
        raise SystemExit(128 + signal) from None

    def _rescue(self) -> None:
        """Saves the steps since the last checkpoint before an error ends the run, if it can."""
        if jax.process_count() > 1:
            # The others are not here: they would have to save with this one.
            return
        since = self._saved
        try:
            if int(self.state.step) == since:
                return
            self._save()
            self.checkpoints.wait()
        except Exception as error:
            # The error of the run itself says more.
            text = f"the steps after step {since} could not be saved: {error}"
        else:
            text = f"saved step {self._saved}; the same command goes on from there"
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
