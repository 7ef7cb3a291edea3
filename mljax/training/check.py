"""Whether a recipe can be run: names, arguments and numbers, before data or devices are touched."""

import functools
import math
from collections.abc import Callable, Mapping

from mljax.backbones import BACKBONES
from mljax.config.binding import bind, lookup
from mljax.config.schema import Config, DataConfig
from mljax.data import AUGMENTATIONS, READERS
from mljax.data.pipeline import Augmentation
from mljax.heads import HEADS
from mljax.training.step import check_losses


def check(config: Config, num_devices: int) -> None:
    """Checks all names, arguments and sizes of a recipe.

    Raises:
      ValueError: naming the field, what was expected and what it is.
    """
    check_data(config.data)
    for part, table, what in (
        (config.model.backbone, BACKBONES, "backbone"),
        (config.model.head, HEADS, "head"),
    ):
        bind(lookup(table, part.name, what), part.kwargs, f"{what} {part.name}")
    augmentations(config)
    check_losses(config.losses)
    _check_numbers(config)
    data, train = config.data, config.train
    micro = num_devices * train.accumulation
    groups = train.accumulation * train.batch_norm_groups
    for name, value, divisor, why in (
        ("data.batch_size", data.batch_size, micro, "devices x train.accumulation"),
        (
            "data.batch_size",
            data.batch_size,
            groups,
            "train.accumulation x train.batch_norm_groups",
        ),
        ("data.eval_batch_size", data.eval_batch_size, num_devices, "devices"),
    ):
        if value % divisor:
            raise ValueError(
                f"{name} must be a positive multiple of {divisor} ({why}), got {value}"
            )


def check_data(data: DataConfig) -> None:
    """Checks the reader and the numbers of a recipe's data.

    Raises:
      ValueError: naming the field, what was expected and what it is.
    """
    reader = lookup(READERS, data.reader.name, "reader")
    bind(reader, data.reader.kwargs, f"reader {data.reader.name}")
    positive = {
        "data.batch_size": data.batch_size,
        "data.eval_batch_size": data.eval_batch_size,
        "data.preprocessing.image_size": data.preprocessing.image_size,
        "data.preprocessing.std": min(data.preprocessing.std),
    }
    _check_range(positive, "positive and finite", _is_positive)
    _check_range({"data.num_workers": data.num_workers}, "0 or more", lambda x: x >= 0)


def check_threshold(threshold: float, top_k: int | None) -> None:
    """Checks what decides which classes are predicted.

    Raises:
      ValueError: for a threshold outside [0, 1] or a top_k below 1.
    """
    _check_range({"threshold": threshold}, "from 0 to 1", _is_share)
    _check_range({"top_k": top_k}, "at least 1", _is_positive)


def _check_numbers(config: Config) -> None:
    train, optimizer, schedule = config.train, config.optimizer, config.schedule
    positive = {
        "eval.every_epochs": config.eval.every_epochs,
        "optimizer.eps": optimizer.eps,
        "optimizer.peak_lr": optimizer.peak_lr,
        "schedule.epochs": schedule.epochs,
        "schedule.final_factor": schedule.final_factor,
        "schedule.initial_factor": schedule.initial_factor,
        "train.accumulation": train.accumulation,
        "train.batch_norm_groups": train.batch_norm_groups,
        "train.checkpoint_every_steps": train.checkpoint_every_steps,
        "train.epochs": train.epochs,
        "train.keep_checkpoints": train.keep_checkpoints,
        "train.log_every_steps": train.log_every_steps,
    }
    decay = {"optimizer.weight_decay": optimizer.weight_decay}
    decays = {
        "optimizer.beta1": optimizer.beta1,
        "optimizer.beta2": optimizer.beta2,
        "train.ema_decay": train.ema_decay,
    }
    shares = {
        "eval.threshold": config.eval.threshold,
        "schedule.warmup_fraction": schedule.warmup_fraction,
    }
    _check_range(positive, "positive and finite", _is_positive)
    _check_range(decay, "0 or more, and finite", lambda x: 0 <= x < math.inf)
    _check_range(decays, "at least 0 and less than 1", lambda x: 0 <= x < 1)
    _check_range(shares, "from 0 to 1", _is_share)
    _check_range({"seed": config.seed}, "at least 0 and less than 2**63", lambda x: 0 <= x < 2**63)


def _check_range(
    fields: Mapping[str, float | None], expected: str, holds: Callable[[float], bool]
) -> None:
    for name, value in fields.items():
        if value is not None and not holds(value):
            raise ValueError(f"{name} must be {expected}, got {value}")


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def augmentations(config: Config) -> list[Augmentation]:
    """Returns the recipe's augmentations with their arguments.

    Raises:
      ValueError: for an unknown name or argument.
    """
    functions = []
    for part in config.data.augment:
        function = lookup(AUGMENTATIONS, part.name, "augmentation")
        bind(function, part.kwargs, f"augmentation {part.name}")
        functions.append(functools.partial(function, **part.kwargs))
    return functions
