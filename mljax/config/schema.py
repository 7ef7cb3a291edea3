"""The dataclasses of a config: typed, frozen, each checking the ranges of its own numbers.

A config is a Python file with `get_config() -> Config`. What can be exchanged is a `Part`: a
callable with its keyword arguments. A dotted path (`--set optimizer.peak_lr=3e-4`, `--set
losses.0.kwargs.clip=0`) overrides one field.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from mljax.config.part import Part, part, plain_arguments

# 8192 x 8192; 192 MiB once decoded. A few kilobytes of PNG can claim billions of pixels.
MAX_PIXELS = 2**26


def _check(owner: object, expected: str, holds: Callable[[Any], bool], *names: str) -> None:
    """Checks fields of a dataclass; None is a field that is not given."""
    for name in names:
        value = getattr(owner, name)
        if value is not None and not holds(value):
            raise ValueError(f"{name} must be {expected}, got {value}")


def _check_positive(owner: object, *names: str) -> None:
    _check(owner, "positive and finite", lambda x: 0 < x < math.inf, *names)


def _check_not_negative(owner: object, *names: str) -> None:
    _check(owner, "0 or more, and finite", lambda x: 0 <= x < math.inf, *names)


def _check_share(owner: object, *names: str) -> None:
    _check(owner, "from 0 to 1", lambda x: 0 <= x <= 1, *names)


Resize = Literal["bilinear", "bicubic", "cv2_bilinear"]

# Of products of float32 in convolutions and matrix products: the device's quickest, as jax has it
# (TF32 on NVIDIA GPUs, bfloat16 on TPUs, float32 on CPUs), or float32 everywhere.
MatmulPrecision = Literal["default", "highest"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the array that a network reads; it travels with checkpoints.

    Attributes:
      image_size: what every image is resized to, in pixels (aspect not kept): the side of a
        square, or (height, width).
      mean: subtracted from each RGB channel after scaling to [0, 1].
      std: divides each RGB channel after that.
      resize: the resampling filter; "bilinear" and "bicubic" are Pillow's, which average where
        images get smaller; "cv2_bilinear" is OpenCV's, which does not.
      draft: decode a JPEG at a half, a quarter or an eighth of its size, if that is no smaller
        than `image_size`: faster, with slightly other pixels. What `data.crop` cuts is whole.
    """

    image_size: int | tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Resize = "bilinear"
    draft: bool = False

    def __post_init__(self) -> None:
        sides = self.image_size
        sides = tuple(sides) if isinstance(sides, (list, tuple)) else (sides, sides)
        if len(sides) != 2 or not all(isinstance(x, int) and x >= 1 for x in sides):
            raise ValueError(
                f"image_size must be positive and finite, got {self.image_size}; expected a side "
                "in pixels, or (height, width)"
            )
        # A square is one number, however it was given.
        square = sides[0] == sides[1]
        object.__setattr__(self, "image_size", sides[0] if square else sides)
        _check(self, "positive and finite", lambda std: all(0 < x < math.inf for x in std), "std")
        _check(self, "finite", lambda mean: all(map(math.isfinite, mean)), "mean")

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of the input, in pixels."""
        size = self.image_size
        return size if isinstance(size, tuple) else (size, size)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the examples come from and how they are prepared.

    Attributes:
      reader: of `mljax.data.READERS`, or a plug-in's; called as `reader(split, **kwargs)`.
      preprocessing: the same for training, evaluation and prediction.
      crop: of `mljax.data.AUGMENTATIONS`, applied to each training image before it is resized.
      augment: of `mljax.data.AUGMENTATIONS`, applied in order to each resized training image.
      views: how often each training image is cropped and augmented, independently, for a batch.
      batch_size: images per optimizer step, over all devices and hosts.
      eval_batch_size: images per evaluation batch, over all devices and hosts.
      num_workers: processes that decode and augment; 0 uses threads of the main process. None
        takes as many as there are CPUs, but no more than one for every 500 image files.
      bad_images: `fail` stops with the file's name; `skip` masks the image and reports the count.
      max_pixels: width times height of the largest image that is decoded; a larger one is bad.
      cache: a folder where resized images are kept, so that each file is decoded once and not once
        an epoch; the batches are the same. An image takes three bytes a pixel. Training images
        that `crop` cuts are not kept. None keeps nothing.
    """

    reader: Part
    preprocessing: Preprocessing
    train_split: str = "train"
    eval_split: str = "val"
    crop: Part | None = None
    augment: tuple[Part, ...] = ()
    views: int = 1
    batch_size: int
    eval_batch_size: int = 64
    num_workers: int | None = None
    bad_images: Literal["fail", "skip"] = "fail"
    max_pixels: int = MAX_PIXELS
    cache: str | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "batch_size", "eval_batch_size", "max_pixels", "views")
        _check_not_negative(self, "num_workers")
        _check(self, "a folder, or None", bool, "cache")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: a backbone, then a head.

    Attributes:
      backbone: of `mljax.backbones.BACKBONES`, or a plug-in's.
      head: of `mljax.heads.HEADS`, or a plug-in's.
      dtype: of the computation; parameters, statistics, logits and losses stay float32.
      init_from: a checkpoint folder whose matching weights start the training; the others keep
        their fresh initialization.
      frozen: paths of what is not trained, such as `backbone`: its parameters and statistics stay,
        and it computes as in evaluation.
    """

    backbone: Part
    head: Part = field(default_factory=lambda: part("linear"))
    dtype: Literal["float32", "bfloat16"] = "float32"
    init_from: str | None = None
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LossConfig(Part):
    """One term of the training loss: a part with a reduction and a weight.

    Attributes:
      reduction: `sum` over everything, or `mean`: sum over classes, mean over the batch.
      weight: factor of this term in the total.
    """

    reduction: Literal["sum", "mean"] = "sum"
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self, "finite", math.isfinite, "weight")

    __hash__ = Part.__hash__


def loss(
    function: Callable[..., Any] | str,
    /,
    *,
    reduction: Literal["sum", "mean"] = "sum",
    weight: float = 1.0,
    **kwargs: Any,  # noqa: ANN401
) -> LossConfig:
    """Returns a term of the training loss: `loss(asymmetric_loss, gamma_neg=4.0, weight=0.25)`.

    Args:
      function: of `mljax.losses.LOSSES`, or a plug-in's.
      reduction: see `LossConfig`.
      weight: see `LossConfig`.
      kwargs: arguments of the function. A part among them is called with the class names, so that
        a loss can read a value of each class from a file.
    """
    name = part(function).name
    return LossConfig(name=name, kwargs=kwargs, reduction=reduction, weight=weight)


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that are trained in their own way; the first group that matches has them.

    Attributes:
      pattern: a shell pattern over dotted paths, such as `head.*` or `*.bias`.
      max_axes: only parameters with this many axes or fewer: 1 are gains, biases and slopes.
      rate_factor: factor of the learning rate.
      frozen: never changed; their gradient still counts in the gradient norm.
      kwargs: arguments of the algorithm that differ, such as `{"weight_decay": 0.0}`.
    """

    pattern: str
    max_axes: int | None = None
    rate_factor: float = 1.0
    frozen: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_not_negative(self, "rate_factor", "max_axes")
        kwargs = plain_arguments(self.kwargs, f"the parameters {self.pattern}")
        object.__setattr__(self, "kwargs", kwargs)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become updates.

    Attributes:
      peak_lr: the highest learning rate of the schedule.
      algorithm: of `mljax.training.optimizer.ALGORITHMS`, any optax factory (`part(optax.adamw)`),
        or a plug-in's: called with the learning rate and its arguments.
      groups: parameters with another rate or other arguments, or frozen ones.
      clip_norm: gradients of a larger global norm are scaled down to it; None does not clip.
    """

    peak_lr: float
    algorithm: Part = field(default_factory=lambda: part("torch_adam"))
    groups: tuple[ParameterGroup, ...] = ()
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check_positive(self, "peak_lr", "clip_norm")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop.

    Attributes:
      epochs: passes over the training split; an epoch is images // batch_size steps, known when
        the reader has counted them.
      ema_decay: of the averaged parameters and running statistics; 0 keeps no average.
      gradients: of `mljax.training.gradients.WRAPPERS`, such as `micro_batches`, the innermost
        first.
      trackers: of `mljax.trackers.TRACKERS`: what is kept of each step beside the weights.
      stop: of `mljax.training.stopping.RULES`: ends the run after an evaluation; None does not.
      checkpoint_every_steps: None saves at the end of each epoch. A killed run loses up to
        two intervals, since checkpoints are written in the background.
      keep_checkpoints: how many of the newest training checkpoints stay on disk.
      non_finite: `stop` at a non-finite loss, gradient, update or statistic, or `skip` the step:
        parameters, statistics, averages and moments stay, the schedule goes on.
      fsdp: shard parameters and optimizer state over the devices instead of replicating them.
      batch_norm_groups: normalize each of this many slices of the batch by its own statistics,
        as data-parallel runs with one slice per GPU do; 1 uses the whole global batch.
      channel_multiple: compute with so many channels that this divides them, wherever there are
        more than it, in a backbone of convolutions: the others are 0 and change nothing but the
        order of sums. 16 makes 80 and 160 of 76 and 152. Parameters, statistics and checkpoints
        keep their shapes. What it gains on a GPU was not measured.
      matmul_precision: of products of float32 in a step; on CPUs both are float32. With `default`,
        logits of a GPU are 8e-4 off; what jax is set to otherwise, by
        `JAX_DEFAULT_MATMUL_PRECISION`, holds.
      deterministic: ask XLA for programs of which two runs on a GPU give equal bits. It chooses
        routines by rule then, without trying which is quickest, and leaves out those that add in
        no fixed order: steps take longer. Equal bits are XLA's promise for the same program on the
        same kind and number of devices, with the same jax, CUDA, cuDNN and driver; between others
        nothing is promised. Neither the promise nor its cost was measured. A max-pool over windows
        has no such program: XLA refuses to compile its gradient. On CPUs equal runs give equal
        bits without this field.
    """

    epochs: float
    ema_decay: float = 0.0
    gradients: tuple[Part, ...] = ()
    trackers: tuple[Part, ...] = ()
    stop: Part | None = None
    checkpoint_every_steps: int | None = None
    keep_checkpoints: int = 2
    log_every_steps: int = 10
    non_finite: Literal["stop", "skip"] = "stop"
    fsdp: bool = False
    batch_norm_groups: int = 1
    channel_multiple: int = 1
    matmul_precision: MatmulPrecision = "default"
    deterministic: bool = False

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "checkpoint_every_steps", "keep_checkpoints")
        _check_positive(self, "log_every_steps", "batch_norm_groups", "channel_multiple")
        _check(self, "at least 0 and less than 1", lambda decay: 0 <= decay < 1, "ema_decay")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation during and after training.

    Attributes:
      every_epochs: epochs between evaluations; the last epoch is always evaluated.
      threshold: a class is predicted where its score is above this, in [0, 1].
      evaluators: of `mljax.evaluators.EVALUATORS`, or a plug-in's.
      best_by: the figure of theirs, higher is better, that chooses the network to keep.
      matmul_precision: see `TrainConfig`; of the evaluations in a run, of evaluate and predict.
    """

    every_epochs: int = 1
    threshold: float = 0.8
    evaluators: tuple[Part, ...] = field(default_factory=lambda: (part("multilabel"),))
    best_by: str = "mAP"
    matmul_precision: MatmulPrecision = "default"

    def __post_init__(self) -> None:
        _check_positive(self, "every_epochs")
        _check_share(self, "threshold")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One whole config."""

    data: DataConfig
    model: ModelConfig
    losses: tuple[LossConfig, ...]
    optimizer: OptimizerConfig
    schedule: Part = field(default_factory=lambda: part("one_cycle"))
    train: TrainConfig
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        names = [term.name for term in self.losses]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"losses: expected at least one, each once, got {names}")
        _check(self, "at least 0 and less than 2**63", lambda seed: 0 <= seed < 2**63, "seed")
