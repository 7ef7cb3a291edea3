"""The contract of a published system: how its state dicts are told, read, written and verified."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from flax import nnx

from converters.table import Table
from mljax.config import Part, Preprocessing

# What a torch file holds, without wrapper levels in its names.
Tensors: TypeAlias = Mapping[str, np.ndarray]
# torch.Tensor; torch is imported only where it computes.
Tensor: TypeAlias = Any


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a state dict holds.

    Attributes:
      backbone: name and arguments for `mljax.create_model`.
      head: likewise.
      num_classes: k; 0 where neither file nor arguments tell it.
      naming: whose names the file has, as `System.table` takes it.
      preprocessing: what the system's networks read unless told otherwise.
      description: one line for people.
      assumption: what the file could not tell and the caller may have to, or nothing.
      arrays: {dotted path in the network: array} of what the caller gave and no file holds.
    """

    backbone: Part
    head: Part
    num_classes: int
    naming: str = "original"
    preprocessing: Preprocessing
    description: str
    assumption: str = ""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class System:
    """A published code base whose checkpoints are read and written.

    Attributes:
      name: for people.
      networks: what it holds, one line for people.
      matches: `matches(tensors)` is whether a state dict is of this system; a single missing
        tensor must not change the answer.
      detect: `detect(tensors, name, **arguments) -> Detection`; `name` is the source, for messages.
        It raises ValueError for a file that is cut down, or arguments that do not fit it.
      arguments: what the file cannot tell, {keyword of `detect`: what it is, for people}. None,
        which stands for what is assumed, must be its default. One that is annotated as an array may
        also be given as the path of a file that holds it.
      validation: how images were resized where its published scores were measured, for people.
      pairs: classes of the (backbone, head) that it writes.
      namings: the names that it writes; `to_torch` takes one of them.
      table: `table(model, naming) -> Table`; the model may be abstract.
      logits: `logits(weights, images, model) -> Tensor` `[b, k]`, the network in plain torch on
        images `[b, 3, h, w]`, written apart from mljax; in the precision of its arguments. Of a
        head without logits it is the first output. Of the model it reads only what the weights do
        not tell. None where there is no such reference, or for a network that it lacks.
    """

    name: str
    networks: str
    matches: Callable[[Tensors], bool]
    detect: Callable[..., Detection]
    arguments: Mapping[str, str] = field(default_factory=dict)
    validation: str = "height and width to the side of the input, bilinear"
    pairs: tuple[tuple[type[nnx.Module], type[nnx.Module]], ...]
    namings: tuple[str, ...] = ("original",)
    table: Callable[..., Table]
    logits: Callable[..., Tensor | None] | None = None
