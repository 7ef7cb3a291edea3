"""Recipes: typed, frozen, checked before any data or device is touched.

A recipe is a Python file with `get_config() -> Config`. A pluggable part is a `Part`: a name and
its keyword arguments, bound against the signature of the callable that the name stands for. A
dotted path (`--set optimizer.peak_lr=3e-4`, `--set losses.0.kwargs.clip=0`) overrides one field.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import runpy
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Part:
    """A pluggable part: the name of a callable and its keyword arguments."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


def part(name: str, **kwargs: Any) -> Part:  # noqa: ANN401
    """Returns a `Part`, written as the call it stands for: `part("cutout", factor=0.5)`."""
    return Part(name=name, kwargs=kwargs)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the array that a network reads; it travels with checkpoints.

    Attributes:
      image_size: side of the square, in pixels, that every image is resized to (aspect not kept).
      mean: subtracted from each RGB channel after scaling to [0, 1].
      std: divides each RGB channel after that.
      resize: the resampling filter.
    """

    image_size: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the examples come from and how they are prepared.

    Attributes:
      reader: a name in `mljax.data.READERS`; called as `reader(split, **kwargs)`.
      preprocessing: the same for training, evaluation and prediction.
      augment: names in `mljax.data.AUGMENTATIONS`, applied in order to each resized training image.
      batch_size: images per optimizer step, over all devices and hosts.
      eval_batch_size: images per evaluation batch, over all devices and hosts.
      num_workers: processes that decode and augment; 0 uses threads of the main process.
      bad_images: `fail` stops with the file's name; `skip` masks the image and reports the count.
    """

    reader: Part
    preprocessing: Preprocessing
    train_split: str = "train"
    eval_split: str = "val"
    augment: tuple[Part, ...] = ()
    batch_size: int
    eval_batch_size: int = 64
    num_workers: int = 0
    bad_images: Literal["fail", "skip"] = "fail"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: a backbone, then a head.

    Attributes:
      dtype: of the computation; parameters, statistics, logits and losses stay float32.
      init_from: a checkpoint folder whose matching weights start the training; the others keep
        their fresh initialization.
    """

    backbone: Part
    head: Part = field(default_factory=lambda: part("linear"))
    dtype: Literal["float32", "bfloat16"] = "float32"
    init_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """One term of the training loss.

    Attributes:
      name: a name in `mljax.losses.LOSSES`.
      reduction: `sum` over everything, or `mean`: sum over classes, mean over the batch.
      weight: factor of this term in the total.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    reduction: Literal["sum", "mean"] = "sum"
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """torch's Adam: weight decay is L2 added to the gradient, for matrices and filters only."""

    peak_lr: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """torch's OneCycleLR.

    Attributes:
      epochs: length of the cycle; None takes the epochs that are trained.
      warmup_fraction: share of the cycle in which the learning rate rises.
      initial_factor: the first learning rate is the peak divided by this.
      final_factor: the last one is the first divided by this.
      cycle_beta1: whether Adam's beta1 goes 0.95 -> 0.85 -> 0.95 against the learning rate.
    """

    epochs: float | None = None
    warmup_fraction: float = 0.2
    initial_factor: float = 25.0
    final_factor: float = 1e4
    cycle_beta1: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop.

    Attributes:
      epochs: passes over the training split; steps = round(epochs * images / batch_size).
      ema_decay: of the averaged parameters and running statistics; 0 keeps no average.
      accumulation: micro-batches per optimizer step; the global batch is split into them.
      checkpoint_every_steps: None saves at the end of each epoch.
      keep_checkpoints: how many of the newest training checkpoints stay on disk.
      non_finite: `stop` at a non-finite loss or gradient, or `skip` that step's update.
      fsdp: shard parameters and optimizer state over the devices instead of replicating them.
      batch_norm_groups: normalize each of this many slices of the batch by its own statistics,
        as data-parallel runs with one slice per GPU do; 1 uses the whole global batch.
    """

    epochs: float
    ema_decay: float = 0.0
    accumulation: int = 1
    checkpoint_every_steps: int | None = None
    keep_checkpoints: int = 2
    log_every_steps: int = 10
    non_finite: Literal["stop", "skip"] = "stop"
    fsdp: bool = False
    batch_norm_groups: int = 1


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation during and after training.

    Attributes:
      every_epochs: epochs between evaluations; the last epoch is always evaluated.
      threshold: a class is predicted where its score is above this, in [0, 1].
    """

    every_epochs: int = 1
    threshold: float = 0.8


@dataclass(frozen=True, kw_only=True)
class Config:
    """One whole recipe."""

    data: DataConfig
    model: ModelConfig
    losses: tuple[LossConfig, ...]
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig
    eval: EvalConfig = EvalConfig()
    seed: int = 0
