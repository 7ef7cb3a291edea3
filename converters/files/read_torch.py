"""Weights and class names out of a torch file or a dict, whatever they are packed in."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from converters.files.class_names import find_class_names
from converters.files.read_folder import read_folder
from converters.files.safe_load import check_nesting, read_file

# Where published and home-grown training scripts put the weights, in the order of preference.
_WEIGHT_KEYS = (
    "model",
    "state_dict",
    "model_state_dict",
    "net",
    "network",
    "module",
    "checkpoint",
    "model_ema",
    "state_dict_ema",
    "ema",
)
# Words in the names of what holds averaged weights, as `model_ema` and `swa_model`.
_AVERAGES = ("ema", "swa", "avg", "average", "averaged", "shadow")
# Levels of a name that parallel training, torch.compile and the like put around a network.
_WRAPPER_LEVELS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module")
_COUNTER = "n_averaged"
_COUNTER_REASON = "the counter of torch's AveragedModel, which nothing reads"
# {where in the container: the mapping there}, from the outermost to the weights.
Levels = list[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """What a torch file holds.

    Attributes:
      name: the source, for messages.
      tensors: {name: array} in file order; half precisions are widened to float32.
      class_names: in the order of the logits, or None.
      names_problem: why the file's class names cannot be read, or nothing.
      container: how the weights were packed, for people.
      left_out: what is among the weights but not the network's: {name: reason}.
      alternatives: other weights of the network in the file, and how to choose them, for people.
    """

    name: str
    tensors: dict[str, np.ndarray]
    class_names: tuple[str, ...] | None
    names_problem: str = ""
    container: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()


def read_torch(
    source: str | os.PathLike | Mapping[str, Any],
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> TorchFile:
    """Reads a state dict, whatever it is packed in.

    Args:
      source: a `.pth`, `.pth.tar`, `.ckpt` (zip or legacy) or `.safetensors` file, told apart by
        their content, a folder of networks (see `read_folder`), or a dict of arrays or tensors.
      key: the entry that holds the weights, with dots for one inside another, such as
        `ema.module`; None takes the first of the usual ones, such as `model` and `state_dict`, and
        averaged weights only where there are no others. `key="state_dict_ema"` picks those.
      prefix: read only the weights whose names start with these levels, such as `student.`,
        without them.

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
    elif Path(source).is_dir():
        name, packing = str(source), "a folder of networks"
        content, key = read_folder(Path(source), key), None
    else:
        path = Path(source)
        name = str(path)
        packing, content = read_file(path)
    check_nesting(content, name)
    levels = _find_weights(content, key, name)
    weights, left_out = _without_counters(levels[-1][1], name)
    if prefix:
        weights, outside = _under_prefix(weights, prefix, name)
        left_out |= outside
    entries, stripped = _strip_wrappers(weights, name)
    others = [k for k, v in entries.items() if not _is_tensor(v)]
    tensors = {k: _to_array(v, k, name) for k, v in entries.items() if _is_tensor(v)}
    copies = _find_copies(levels)
    notes = [packing, _describe_levels(levels, copies)]
    if prefix:
        notes.append(f"only names under `{prefix.rstrip('.')}.`")
    if stripped:
        notes.append(f"`{'`, `'.join(stripped)}` stripped from the names")
    if others:
        notes.append(f"entries that are no tensors left out: {', '.join(others)}")
    class_names, problem = None, ""
    try:
        class_names = find_class_names([level for _, level in levels])
    except ValueError as error:
        problem = f"{name}: its class names have no clear order: {error}"
    return TorchFile(
        name=name,
        tensors=tensors,
        class_names=class_names,
        names_problem=problem,
        container=", ".join(note for note in notes if note),
        left_out=left_out,
        alternatives=tuple(
            f"{'averaged' if is_averaged(where) else 'other'} weights under {where!r} "
            f"(--key {where})"
            for where in copies
        ),
    )


def is_averaged(name: str) -> bool:
    """Returns whether a name says that what it holds are averaged weights."""
    words = name.lower().replace(".", "_").split("_")
    return any(word in _AVERAGES or word.endswith("ema") for word in words)


def _is_tensor(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(map(_is_tensor, value.values()))


def _find_weights(content: object, key: str | None, name: str) -> Levels:
    """Returns the mappings from the outermost to the one that holds the weights."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{name}: holds a {type(content).__name__}, expected a state dict")
    return [("", content), *_inner_weights(content, key, name)]


def _inner_weights(content: Mapping[str, Any], key: str | None, name: str) -> Levels:
    """Returns the levels below a mapping; none where it holds the weights itself."""
    if key is not None:
        found = _by_key(content, key)
        if not found:
            raise ValueError(f"{name}: has no weights under {key!r}; it holds {_list(content)}")
        return [*found, *_inner_weights(found[-1][1], None, name)]
    for known in sorted(_WEIGHT_KEYS, key=is_averaged):
        inner = content.get(known)
        if isinstance(inner, Mapping) and (_holds_tensors(inner) or _has_known_key(inner)):
            levels = [(known, inner), *_inner_weights(inner, None, name)]
            return _plain_beside(content, levels) if is_averaged(known) else levels
    if _holds_tensors(content):
        return []
    candidates = [k for k, v in content.items() if _holds_tensors(v)]
    plain = [k for k in candidates if not is_averaged(str(k))]
    for choice in (candidates, plain):
        if len(choice) == 1:
            return [(str(choice[0]), content[choice[0]])]
    problem = f"several entries hold tensors, choose one by key: {candidates}"
    raise ValueError(
        f"{name}: {problem if candidates else f'holds no tensors; it holds {_list(content)}'}"
    )


def _plain_beside(content: Mapping[str, Any], averaged: Levels) -> Levels:
    """Returns the one entry, by whatever key, with the names of averaged weights; else those."""
    plain = [
        (str(key), value)
        for key, value in content.items()
        if not is_averaged(str(key)) and _has_names_of(averaged[-1][1], value)
    ]
    return plain if len(plain) == 1 else averaged


def _has_names_of(weights: Mapping[str, Any], value: object) -> bool:
    """Returns whether a value holds tensors by most of the names of some weights."""
    if not isinstance(value, Mapping) or not _holds_tensors(value):
        return False
    names = set(map(_without_wrappers, weights))
    return 2 * len(names.intersection(map(_without_wrappers, value))) > len(names)


def _by_key(content: Mapping[str, Any], key: str) -> Levels:
    """Returns the levels to an entry; none if there is no such mapping."""
    if isinstance(content.get(key), Mapping):
        return [(key, content[key])]
    levels: Levels = []
    for part in key.split("."):
        content = content.get(part)  # pyright: ignore[reportAssignmentType]
        if not isinstance(content, Mapping):
            return []
        levels.append((part, content))
    return levels


def _has_known_key(mapping: Mapping[str, Any]) -> bool:
    inner = [mapping[known] for known in _WEIGHT_KEYS if isinstance(mapping.get(known), Mapping)]
    return any(_holds_tensors(value) or _has_known_key(value) for value in inner)


def _find_copies(levels: Levels) -> list[str]:
    """Returns where else in the container weights stand that have the names of those taken."""
    chosen = levels[-1][1]
    return [
        where
        for where, mapping in _mappings(levels[0][1], ())
        if mapping is not chosen and _has_names_of(chosen, mapping)
    ]


def _mappings(content: object, where: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields all mappings by their place in the container, the outermost left out."""
    if not isinstance(content, Mapping) or len(where) > 4:
        return
    if where:
        yield ".".join(where), content
    for key, value in content.items():
        if isinstance(key, str):
            yield from _mappings(value, (*where, key))


def _list(names: Iterable[object]) -> str:
    names = [repr(name) for name in names]
    return "{" + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") + "}"


def _describe_levels(levels: Levels, copies: list[str]) -> str:
    if len(levels) == 1:
        return "bare state dict"
    outer, chosen = levels[0][1], levels[1][0]
    text = f"{_list(outer)}, weights under {'.'.join(key for key, _ in levels[1:])!r}"
    others = [str(k) for k, v in outer.items() if str(k) != chosen and _holds_tensors(v)]
    others = [repr(where) for where in dict.fromkeys([*others, *copies])]
    return text + (f" (not read: {', '.join(others)})" if others else "")


def _without_counters(
    weights: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the weights without the counters of averaging, and those with the reason."""
    for full in weights:
        if not isinstance(full, str):
            raise ValueError(f"{name}: a weight's name is {full!r}, expected text")
    counters = [full for full in weights if full.split(".")[-1] == _COUNTER]
    kept = {full: value for full, value in weights.items() if full not in counters}
    return kept, dict.fromkeys(counters, _COUNTER_REASON)


def _without_wrappers(name: object) -> str:
    return ".".join(level for level in str(name).split(".") if level not in _WRAPPER_LEVELS)


def _under_prefix(
    weights: Mapping[str, Any], prefix: str, name: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the weights under a prefix without it, and those outside with the reason."""
    start = f"{prefix.rstrip('.')}."
    found = {full: full for full in weights if full.startswith(start)}
    if not found:
        # As the report shows the names: without wrapper levels.
        short = {full: _without_wrappers(full) for full in weights}
        found = {full: text for full, text in short.items() if text.startswith(start)}
    if not found:
        levels = dict.fromkeys(full.split(".")[0] for full in weights)
        raise ValueError(
            f"{name}: no name starts with the prefix {start!r}; they start with {_list(levels)}"
        )
    inside = {text.removeprefix(start): weights[full] for full, text in found.items()}
    return inside, {
        full: outside_reason(start)
        for full, value in weights.items()
        if full not in found and _is_tensor(value)
    }


def outside_reason(prefix: str) -> str:
    """Returns why a tensor whose name does not start with the network's prefix is left out."""
    return f"outside `{prefix}`, so not the network's"


def _strip_wrappers(weights: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the weights without wrapper levels in their names, and the levels that were there."""
    entries: dict[str, Any] = {}
    stripped: set[str] = set()
    for full, value in weights.items():
        stripped.update(level for level in full.split(".") if level in _WRAPPER_LEVELS)
        short = _without_wrappers(full)
        if short in entries:
            raise ValueError(
                f"{name}: {short!r} is there twice, with and without a wrapper level; choose one "
                "by prefix"
            )
        entries[short] = value
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
