"""Recipes: typed, frozen, checked before any data or device is touched.

A recipe is a Python file with `get_config() -> Config`. A pluggable part is a `Part`: a name and
its keyword arguments, bound against the signature of the callable that the name stands for. A
dotted path (`--set optimizer.peak_lr=3e-4`, `--set losses.0.kwargs.clip=0`) overrides one field.
"""

import ast
import dataclasses
import json
import runpy
import traceback
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mljax.config.binding import suggest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A pluggable part: the name of a callable and its keyword arguments."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        # The arguments may be lists, which have no hash; equal parts still have equal hashes.
        return hash(self.name)


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
      epochs: passes over the training split; an epoch is images // batch_size steps, known when
        the reader has counted them.
      ema_decay: of the averaged parameters and running statistics; 0 keeps no average.
      accumulation: micro-batches per optimizer step; the global batch is split into them. Batch
        norm and the losses that compare images (the kernels' contrast, the likelihood budget of
        the selective loss) then see one micro-batch.
      checkpoint_every_steps: None saves at the end of each epoch.
      keep_checkpoints: how many of the newest training checkpoints stay on disk.
      non_finite: `stop` at a non-finite loss, gradient or update, or `skip` the step: parameters,
        statistics, averages and moments stay, the schedule goes on.
      fsdp: shard parameters and optimizer state over the devices instead of replicating them.
      batch_norm_groups: normalize each of this many slices of the batch by its own statistics,
        as data-parallel runs with one slice per GPU do; 1 uses the whole global batch.
      estimate_prior: keep the mean prediction of each class over the whole training, and write it
        to prior.csv in the workdir after each epoch: a class prior for the selective loss.
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
    estimate_prior: bool = False


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


def load_config(path: str | Path) -> Config:
    """Returns the recipe of a Python file that defines `get_config()`, or of a `recipe.json`.

    Raises:
      ValueError: for a file that cannot be run or read, has no `get_config`, or returns something
        else.
      FileNotFoundError: for no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}; the ones that ship are in configs/")
    if path.suffix == ".json":
        return from_json(Config, path.read_text(), str(path))
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        config = None if get_config is None else get_config()
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        raise ValueError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    if get_config is None:
        raise ValueError(f"{path} defines no get_config()")
    if not isinstance(config, Config):
        raise ValueError(f"{path}: get_config() must return a mljax Config, got {type(config)}")
    return _typed(config, Config, str(path))


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Returns `config` with each `path=value` applied, in order.

    Values are Python literals; what is none is taken as text.

    Raises:
      ValueError: for an unknown path (with close matches), or a value of the wrong type.
    """
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ValueError(f"expected path=value, got {assignment!r}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError):
            value = text
        config = _replace(config, Config, path.split("."), value, path)
    return config


def _replace(node: Any, kind: Any, keys: list[str], value: Any, path: str) -> Any:  # noqa: ANN401
    """Returns `node`, which is a `kind`, with the field under `keys` replaced."""
    if not keys:
        return _typed(value, kind, path)
    key, rest = keys[0], keys[1:]
    if isinstance(node, tuple):
        if not key.isdecimal() or int(key) >= len(node):
            raise ValueError(f"{path}: no entry {key!r}; there are {len(node)}, counted from 0")
        index, kinds = int(key), typing.get_args(kind) or (Any, ...)
        inner = kinds[0] if kinds[-1] is ... else kinds[index]
        new = _replace(node[index], inner, rest, value, path)
        return (*node[:index], new, *node[index + 1 :])
    if isinstance(node, dict):
        if rest and key not in node:
            raise ValueError(f"{path}: unknown field {key!r}{suggest(key, list(node))}")
        return node | {key: _replace(node.get(key), Any, rest, value, path)}
    if dataclasses.is_dataclass(node):
        kinds = typing.get_type_hints(kind)
        if key not in kinds:
            raise ValueError(f"{path}: unknown field {key!r}{suggest(key, list(kinds))}")
        new = _replace(getattr(node, key), kinds[key], rest, value, path)
        return dataclasses.replace(node, **{key: new})  # pyright: ignore[reportArgumentType]
    raise ValueError(f"{path}: nothing to set under {node!r}")


def to_json(config: Any) -> str:  # noqa: ANN401
    """Returns a config, or any dataclass of this file, as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(kind: type[T], text: str, where: str = "JSON") -> T:
    """Returns the dataclass `kind` (a config, or a part of one) from its JSON.

    Raises:
      ValueError: for an unknown or missing field, or one of the wrong type, naming its path.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    return _typed(value, kind, where)


def _typed(value: Any, kind: Any, path: str) -> Any:  # noqa: ANN401
    """Returns `value` as `kind`: JSON's dicts and lists become dataclasses and tuples."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _plain(value, path)
    if dataclasses.is_dataclass(kind):
        return _typed_dataclass(value, kind, path)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _typed(value, next(a for a in arguments if a is not type(None)), path)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{path}: expected one of {', '.join(arguments)}, got {value!r}")
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(kinds) != len(value):
            raise ValueError(f"{path}: expected {len(kinds)} entries, got {len(value)}")
        return tuple(
            _typed(v, k, f"{path}.{i}") for i, (v, k) in enumerate(zip(value, kinds, strict=True))
        )
    if kind is float and type(value) is int:
        return float(value)
    expected = origin or kind
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"{path}: expected {expected.__name__}, got {value!r}")
    return _plain(value, path) if expected is dict else value


def _plain(value: Any, path: str) -> Any:  # noqa: ANN401
    """Returns an argument with tuples for lists, so that it comes back from JSON as it was."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v, f"{path}.{i}") for i, v in enumerate(value))
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(v, f"{path}.{key}") for key, v in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(
        f"{path}: expected a number, text, None, or lists and dicts of them, got {value!r}"
    )


def _typed_dataclass(value: Any, kind: Any, path: str) -> Any:  # noqa: ANN401
    values = value
    if isinstance(value, kind):
        values = {f.name: getattr(value, f.name) for f in dataclasses.fields(kind)}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected {kind.__name__}, got {value!r}")
    kinds = typing.get_type_hints(kind)
    for name in values:
        if name not in kinds:
            raise ValueError(f"{path}: unknown field {name!r}{suggest(name, list(kinds))}")
    fields = {name: _typed(v, kinds[name], f"{path}.{name}") for name, v in values.items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
