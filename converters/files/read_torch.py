"""Weights and class names out of a torch file or a dict, whatever they are packed in."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from converters.files.safe_load import read_file

# Where published and home-grown training scripts put the weights, in the order of preference.
_WEIGHT_KEYS = (
    "model",
    "state_dict",
    "model_state_dict",
    "net",
    "network",
    "checkpoint",
    "model_ema",
    "state_dict_ema",
    "ema",
)
_NAME_LISTS = ("idx_to_class", "class_names", "classes")
_NAME_INDICES = ("class_to_idx", "classes_map")
# Levels of a name that data-parallel training and torch.compile put around a network.
_WRAPPER_LEVELS = ("module", "_orig_mod")
# What PyTorch Lightning's modules usually call the network: there it precedes every name.
_LIGHTNING_LEVELS = {"model", "net", "network"}


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """What a torch file holds.

    Attributes:
      name: the source, for messages.
      tensors: {name: array} in file order; half precisions are widened to float32.
      class_names: in the order of the logits, or None.
      container: how the weights were packed, for people.
    """

    name: str
    tensors: dict[str, np.ndarray]
    class_names: tuple[str, ...] | None
    container: str


def read_torch(
    source: str | os.PathLike | Mapping[str, Any], *, key: str | None = None
) -> TorchFile:
    """Reads a state dict, whatever it is packed in.

    Args:
      source: a `.pth`, `.pth.tar`, `.ckpt` (zip or legacy) or `.safetensors` file, told apart by
        their content, or a dict of arrays or tensors.
      key: the entry that holds the weights; None takes the first of the usual ones, such as
        `model` and `state_dict`. `key="state_dict_ema"` picks the averaged weights.

    Raises:
      ValueError: for a file that is empty, cut off, damaged, no checkpoint, or that asks to run
        code; for a container without tensors. The message names the file.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    if not isinstance(source, (str, os.PathLike, Mapping)):
        raise ValueError(
            f"expected a path or a dict of arrays, got a {type(source).__name__}; of a torch "
            "module give the state_dict()"
        )
    if isinstance(source, Mapping):
        name, packing, content = "the given dict", "dict", source
    else:
        path = Path(source)
        name = str(path)
        packing, content = read_file(path)
    levels = _find_weights(content, key, name)
    weights = levels[-1]
    entries, stripped = _strip_wrappers(weights, name)
    others = [k for k, v in entries.items() if not _is_tensor(v)]
    tensors = {k: _to_array(v, k, name) for k, v in entries.items() if _is_tensor(v)}
    notes = [packing, _describe_levels(levels)]
    if stripped:
        notes.append(f"`{'`, `'.join(stripped)}` stripped from the names")
    if others:
        notes.append(f"entries that are no tensors left out: {', '.join(others)}")
    return TorchFile(
        name=name,
        tensors=tensors,
        class_names=_find_class_names(levels),
        container=", ".join(note for note in notes if note),
    )


def _is_tensor(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(map(_is_tensor, value.values()))


def _find_weights(content: object, key: str | None, name: str) -> list[Mapping[str, Any]]:
    """Returns the mappings from the outermost to the one that holds the weights."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{name}: holds a {type(content).__name__}, expected a state dict")
    if key is not None:
        if not isinstance(content.get(key), Mapping):
            raise ValueError(f"{name}: has no weights under {key!r}; it holds {_list(content)}")
        return [content, *_find_weights(content[key], None, name)]
    for known in _WEIGHT_KEYS:
        inner = content.get(known)
        if isinstance(inner, Mapping) and (_holds_tensors(inner) or _has_known_key(inner)):
            return [content, *_find_weights(inner, None, name)]
    if _holds_tensors(content):
        return [content]
    candidates = [k for k, v in content.items() if _holds_tensors(v)]
    if len(candidates) == 1:
        return [content, content[candidates[0]]]
    problem = f"several entries hold tensors, choose one by key: {candidates}"
    raise ValueError(
        f"{name}: {problem if candidates else f'holds no tensors; it holds {_list(content)}'}"
    )


def _has_known_key(mapping: Mapping[str, Any]) -> bool:
    inner = [mapping[known] for known in _WEIGHT_KEYS if isinstance(mapping.get(known), Mapping)]
    return any(_holds_tensors(value) or _has_known_key(value) for value in inner)


def _list(names: Iterable[object]) -> str:
    names = [repr(name) for name in names]
    return "{" + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") + "}"


def _describe_levels(levels: list[Mapping[str, Any]]) -> str:
    if len(levels) == 1:
        return "bare state dict"
    outer = levels[0]
    chosen = next(k for k, v in outer.items() if v is levels[1])
    text = f"{_list(outer)}, weights under {chosen!r}"
    others = [repr(k) for k, v in outer.items() if k != chosen and _holds_tensors(v)]
    return text + (f" (not read: {', '.join(others)})" if others else "")


def _strip_wrappers(weights: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the weights without wrapper levels in their names, and the levels that were there."""
    entries: dict[str, Any] = {}
    stripped: set[str] = set()
    for full, value in weights.items():
        if not isinstance(full, str):
            raise ValueError(f"{name}: a weight's name is {full!r}, expected text")
        levels = full.split(".")
        stripped.update(level for level in levels if level in _WRAPPER_LEVELS)
        short = ".".join(level for level in levels if level not in _WRAPPER_LEVELS)
        if short in entries:
            raise ValueError(f"{name}: {short!r} is there twice, with and without a wrapper level")
        entries[short] = value
    outer = {name.split(".")[0] for name in entries}
    inner = {name.partition(".")[2]: value for name, value in entries.items()}
    if len(outer) == 1 and outer <= _LIGHTNING_LEVELS and "" not in inner:
        entries = inner
        stripped |= outer
    return entries, [f"{level}." for level in sorted(stripped)]


def _to_array(value: Any, key: str, name: str) -> np.ndarray:  # noqa: ANN401
    """Returns a torch tensor or an array as numpy, floats in at least float32."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            if value.is_floating_point() and value.element_size() < 4:
                value = value.float()
            value = value.numpy()
        array = np.asarray(value)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: {key} is no plain dense tensor ({error})") from error
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    return array


def _find_class_names(levels: list[Mapping[str, Any]]) -> tuple[str, ...] | None:
    for level in levels:
        for known in _NAME_LISTS:
            names = level.get(known)
            if isinstance(names, np.ndarray):
                names = names.tolist()
            if isinstance(names, Mapping) and any(isinstance(v, str) for v in names.values()):
                # Parity: the original scripts take the values in dict order, not by index.
                return tuple(str(name) for name in names.values())
            if isinstance(names, (list, tuple)) and names:
                return tuple(str(name) for name in names)
        for known in (*_NAME_INDICES, *_NAME_LISTS):
            indices = level.get(known)
            if not isinstance(indices, Mapping) or not indices:
                continue
            if all(isinstance(index, (int, np.integer)) for index in indices.values()):
                return tuple(str(name) for name in sorted(indices, key=indices.__getitem__))
    return None
