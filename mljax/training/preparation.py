"""From a config to everything that a run needs."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from mljax.config.schema import Config, ParameterGroup
from mljax.data.deep_images import DeepImages
from mljax.data.pipeline import Batches, eval_batches, train_batches
from mljax.data.records import Records
from mljax.devices.compilation_cache import compiling
from mljax.devices.mesh import make_mesh, replicated, state_sharding
from mljax.models.arrays import Arrays, class_arrays
from mljax.models.classifier import Classifier, for_classes
from mljax.models.inference import make_forward, outputs_read
from mljax.terminal.progress import make_progress
from mljax.training.gradients import make_gradients
from mljax.training.initialize import make_model
from mljax.training.objective import make_terms
from mljax.training.optimizer import check_groups, group_names, is_elementwise, make_optimizer
from mljax.training.packing import Packing
from mljax.training.parts import Parts, check_batch_sizes, in_training_order, resolve_parts
from mljax.training.schedules import Schedule, hyperparameters
from mljax.training.state import TrainState, make_state
from mljax.training.step import jit_step, make_train_step
from mljax.training.summary import describe


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop and a dry run need.

    Attributes:
      config: for the numbers of the loop.
      parts: of the config.
      train: the training split.
      evaluation: the split that is evaluated.
      train_batches: `train_batches(start_step=0)`: this process's batches from a step on.
      eval_batches: `eval_batches()`: this process's batches of the evaluated split.
      deep_images: of both splits, in the whole run.
      model: structure, class names, preprocessing; its arrays belong to `state`.
      evaluated: the same for the classes of the evaluated split.
      of_classes: arrays by path of the evaluated classes where they are not the training's; they
        go over the state's statistics.
      mesh: the devices.
      schedule: hyperparameters over the steps.
      state: before the first step, by path.
      packing: of the states that `step` takes and returns, None if these are by path too.
      step: jitted `step(state, batch, key, hyperparameters)`; it donates the state.
      forward: `forward(params, statistics, images)`, for the evaluated classes.
      steps_per_epoch: images // batch_size, at least 1.
      total_steps: optimizer steps of the whole run.
      description: of all this, for people.
    """

    config: Config
    parts: Parts
    train: Records
    evaluation: Records
    train_batches: Callable[..., Batches]
    eval_batches: Callable[[], Batches]
    deep_images: DeepImages
    model: Classifier
    evaluated: Classifier
    of_classes: Arrays
    mesh: Mesh
    schedule: Schedule
    state: TrainState
    packing: Packing | None
    step: Any
    forward: Any
    steps_per_epoch: int
    total_steps: int
    description: dict[str, str]

    @property
    def rules(self) -> dict[str, Any]:
        """What reacts to evaluations: schedules, by hyperparameter, and the stopping rule."""
        rules = {name: value for name, value in self.schedule.items() if hasattr(value, "update")}
        return rules if self.parts.stop is None else {**rules, "stop": self.parts.stop}

    def pack(self, state: TrainState) -> TrainState:
        """Returns a state by path as `step` takes it; what it is a copy of is freed."""
        return state if self.packing is None else self.packing.take(state)

    def unpack(self, state: TrainState) -> TrainState:
        """Returns by path what `step` returned."""
        return state if self.packing is None else self.packing.unpack(state)

    def compile_forward(self, state: TrainState, console: Console) -> None:
        """Compiles what evaluates, before the first step: there is nothing to save meanwhile."""
        rows = self.config.data.eval_batch_size // jax.process_count()
        height, width = np.broadcast_to(self.config.data.preprocessing.image_size, 2).tolist()
        images = np.zeros((rows, height, width, 3), np.uint8)
        network = self.description["network"]
        program = f"evaluation of {network}, {rows} x {height} x {width}"
        with make_progress(console, transient=True) as bar:
            task = bar.add_task("", total=None, status="")
            with compiling(bar, task, program, then="compiled"):
                self.forward(state.params, state.statistics | self.of_classes, images)


def prepare(config: Config) -> Training:
    """Returns the training of a config, on all devices of all processes.

    Raises:
      ValueError: for whatever does not fit in the config, the data or the devices.
      FileNotFoundError: for data, a checkpoint or a file of an argument that is not there.
    """
    parts = resolve_parts(config)
    mesh = make_mesh()
    check_batch_sizes(config, mesh.size)
    train, evaluation = (
        parts.reader(split) for split in (config.data.train_split, config.data.eval_split)
    )
    evaluation = in_training_order(train, evaluation)
    model, initialized = make_model(
        config.model.backbone,
        config.model.head,
        train.classes,
        dtype=config.model.dtype,
        preprocessing=config.data.preprocessing,
        seed=config.seed,
        init_from=config.model.init_from,
    )
    evaluated = model
    if evaluation.class_vectors is not None:
        evaluated = for_classes(model, evaluation.classes)

    steps_per_epoch = max(len(train) // config.data.batch_size, 1)
    total_steps = max(round(config.train.epochs * steps_per_epoch), 1)
    schedule = parts.schedule(config.optimizer.peak_lr, total_steps, steps_per_epoch)
    frozen = [ParameterGroup(pattern=f"{path}.*", frozen=True) for path in config.model.frozen]
    groups = (*frozen, *config.optimizer.groups)
    optimizer = make_optimizer(config.optimizer.algorithm, groups, config.optimizer.clip_norm)

    gradients = make_gradients(
        model,
        make_terms(config.losses, train.class_names),
        trackers=parts.trackers,
        batch_norm_groups=config.train.batch_norm_groups,
        frozen=config.model.frozen,
        preprocessing=config.data.preprocessing,
        channel_multiple=config.train.channel_multiple,
    )
    for wrap in parts.wrappers:
        gradients = wrap(gradients)

    state = make_state(
        model,
        optimizer,
        hyperparameters(schedule, 0),
        ema_decay=config.train.ema_decay,
        trackers=parts.trackers,
    )
    check_groups(state.params, groups)
    shardings = state_sharding(mesh, state, fsdp=config.train.fsdp)
    state = jax.device_put(state, shardings)
    packing = None
    # A buffer of arrays that are split over the devices would bring them all together.
    if is_elementwise(config.optimizer.algorithm) and not config.train.fsdp:
        packing = Packing(state, group_names(state.params, groups))
        gradients = packing.gradients(gradients)
        shardings = replicated(mesh)
    step = make_train_step(gradients, optimizer, ema_decay=config.train.ema_decay)
    forward = make_forward(
        evaluated,
        mesh,
        outputs_read(make() for make in parts.evaluators),
        preprocessing=config.data.preprocessing,
        matmul_precision=config.eval.matmul_precision,
        deterministic=config.train.deterministic,
    )
    deep_images = DeepImages()
    loading = {
        "preprocessing": config.data.preprocessing,
        "num_workers": config.data.num_workers,
        "bad_images": config.data.bad_images,
        "max_pixels": config.data.max_pixels,
        "cache": config.data.cache,
        "deep_images": deep_images,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
    description = describe(
        config,
        train,
        evaluation,
        params=state.params,
        devices=mesh.devices.flat,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        initialized=initialized,
    )
    return Training(
        config=config,
        parts=parts,
        train=train,
        evaluation=evaluation,
        train_batches=functools.partial(
            train_batches,
            train,
            crop=parts.crop,
            augment=parts.augment,
            views=config.data.views,
            batch_size=config.data.batch_size,
            seed=config.seed,
            **loading,
        ),
        eval_batches=functools.partial(
            eval_batches, evaluation, batch_size=config.data.eval_batch_size, **loading
        ),
        deep_images=deep_images,
        model=model,
        evaluated=evaluated,
        # The model's own arrays become the state's, which the steps donate.
        of_classes={} if evaluated is model else class_arrays(evaluated),
        mesh=mesh,
        schedule=schedule,
        state=state,
        packing=packing,
        step=jit_step(
            step,
            mesh,
            shardings,
            matmul_precision=config.train.matmul_precision,
            deterministic=config.train.deterministic,
        ),
        forward=forward,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        description=description,
    )
