"""The callables that a config names, found and checked before any data is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mljax.config.part import Part, resolved
from mljax.config.schema import Config
from mljax.data.records import Records
from mljax.training.objective import check_losses
from mljax.training.optimizer import check_hyperparameters, make_optimizer
from mljax.training.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Callables with the arguments of the config; all but these are theirs to be called with.

    Attributes:
      reader: `reader(split)`.
      crop: `crop(image, rng)`, or None.
      augment: each `augment(image, rng)`.
      wrappers: each `wrap(gradients)`.
      schedule: `schedule(peak_lr, total_steps, steps_per_epoch)`.
      trackers: name to tracker.
      evaluators: each makes a fresh evaluator.
      stop: the stopping rule, or None.
    """

    reader: Callable[[str], Records]
    crop: Callable[..., Any] | None
    augment: list[Callable[..., Any]]
    wrappers: list[Callable[..., Any]]
    schedule: Callable[[float, int, int], Schedule]
    trackers: dict[str, Any]
    evaluators: list[Callable[[], Any]]
    stop: Any


def resolve_parts(config: Config) -> Parts:
    """Returns the parts of a config; nothing is read and no device is touched.

    Raises:
      ValueError: for a name or an argument that does not fit.
    """
    optimizer, train = config.optimizer, config.train
    for chosen, kind in ((config.model.backbone, "backbone"), (config.model.head, "head")):
        resolved(chosen, kind)
    check_losses(config.losses)
    make_optimizer(optimizer.algorithm, optimizer.groups)
    schedule = resolved(config.schedule, "schedule")
    check_hyperparameters(optimizer.algorithm, list(schedule(optimizer.peak_lr, 1, 1)))
    return Parts(
        reader=resolved(config.data.reader, "reader"),
        crop=None if config.data.crop is None else resolved(config.data.crop, "augmentation"),
        augment=[resolved(chosen, "augmentation") for chosen in config.data.augment],
        wrappers=[resolved(chosen, "gradient wrapper") for chosen in train.gradients],
        schedule=schedule,
        trackers={_short(chosen): resolved(chosen, "tracker")() for chosen in train.trackers},
        evaluators=[resolved(chosen, "evaluator") for chosen in config.eval.evaluators],
        stop=None if train.stop is None else resolved(train.stop, "stopping rule")(),
    )


def _short(chosen: Part) -> str:
    return chosen.name.rpartition(":")[2]


def check_batch_sizes(config: Config, num_devices: int) -> None:
    """Checks that batches can be split over devices and groups.

    Raises:
      ValueError: naming the field.
    """
    groups = config.train.batch_norm_groups
    for name, value, divisor, why in (
        ("data.batch_size", config.data.batch_size, num_devices, "devices"),
        ("data.batch_size", config.data.batch_size, groups, "train.batch_norm_groups"),
        ("data.eval_batch_size", config.data.eval_batch_size, num_devices, "devices"),
    ):
        if value % divisor:
            raise ValueError(f"{name} must be a multiple of {divisor} ({why}), got {value}")


def in_training_order(train: Records, evaluation: Records) -> Records:
    """Returns the split to evaluate with its classes in the order of the training split.

    Classes are matched by name. Where they have vectors, a split may have its own.

    Raises:
      ValueError: if the classes differ; it names those that only one split has.
    """
    if train.class_vectors is not None:
        return evaluation
    return evaluation.in_class_order(train.class_names, "the training split")
