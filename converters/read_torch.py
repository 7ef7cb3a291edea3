"""Weights out of a torch file, safely: a pickle with code in it is refused, never executed."""

import argparse
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

# Where published and home-grown training scripts put the weights, in the order of preference.
_WEIGHT_KEYS = (
    "model",
    "state_dict",
    "model_state_dict",
    "net",
    "network",
    "model_ema",
    "state_dict_ema",
    "ema",
)
_NAME_LISTS = ("idx_to_class", "class_names", "classes")
_NAME_INDICES = ("class_to_idx", "classes_map")
# Levels of a name that data-parallel training and torch.compile put around a network.
_WRAPPER_LEVELS = ("module", "_orig_mod")
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OTHER_FORMATS = (
    (b"version https://git-lfs", "a git-LFS pointer: run `git lfs pull` for the real file"),
    (b"<!doctype html", "an HTML page, as a failed download leaves it: download it again"),
    (b"<html", "an HTML page, as a failed download leaves it: download it again"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89png", "a PNG image"),
    (b"\x89hdf", "an HDF5 file"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"\x93numpy", "a numpy file: give a dict of arrays instead"),
)


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
    if isinstance(source, Mapping):
        name, packing, content = "the given dict", "dict", source
    else:
        path = Path(source)
        name = str(path)
        packing, content = _read_file(path)
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


def _read_file(path: Path) -> tuple[str, Any]:
    """Returns a description of the format, and the file's content."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the torch file itself")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path}: the file is empty; download it again")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip torch file", _torch_load(path)
    if head[:1] == b"\x80" and head[2:].startswith(_LEGACY_MAGIC):
        return "legacy torch file", _torch_load(path)
    if head[8:9] == b"{":
        return "safetensors file", _read_safetensors(path)
    raise ValueError(f"{path}: is no torch checkpoint but {_describe_format(head)}")


def _describe_format(head: bytes) -> str:
    start = head.lstrip().lower()
    for prefix, description in _OTHER_FORMATS:
        if start.startswith(prefix):
            return description
    if head[:1] == b"\x80":
        return (
            "a Python pickle that torch.save did not write; it was not opened, since that can run "
            "code. Where you trust it, save its arrays with torch.save or as safetensors"
        )
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"text that starts with {head[:40].decode()!r}"
    return f"an unknown format that starts with the bytes {head[:8].hex(' ')}"


def _check_zip(path: Path) -> None:
    """Raises ValueError for a zip file that is damaged or that torch did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # torch.serialization.set_crc32_options(False) writes zeros.
            damaged = archive.testzip() if any(member.CRC for member in members) else None
    except Exception as error:  # Damaged headers raise anything, as when a name is no text.
        raise ValueError(
            f"{path}: the file is cut off or damaged ({error}); download it again"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"{path}: the file is damaged (bad checksum of {damaged}); download it again"
        )
    if not any(member.filename.endswith("/data.pkl") for member in members):
        names = ", ".join(member.filename for member in members[:3])
        raise ValueError(f"{path}: is a zip file but no torch checkpoint; it holds {names}")


def _torch_load(path: Path) -> Any:  # noqa: ANN401
    torch = _import_torch()
    try:
        with torch.serialization.safe_globals(_allowed_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # A damaged pickle stream can raise anything.
        refused = _refused_global(error)
        if refused is None:
            unpickling = isinstance(error, pickle.UnpicklingError)
            reason = "broken pickle" if unpickling else f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{path}: the file is cut off or damaged ({reason}); download it again"
            ) from error
        raise ValueError(
            f"{path}: refused, because loading it would call {refused!r}, which is no tensor or "
            "plain value and could run any code. If it is a whole pickled model that you trust, "
            "load it with the code that made it, and save its state_dict() instead"
        ) from error


def _refused_global(error: Exception) -> str | None:
    """Returns the name that torch's restricted unpickler refused, if that is what happened."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    _, found, rest = str(error).partition("GLOBAL ")
    return rest.split()[0] if found and rest.split() else None


def _allowed_globals() -> list[Callable | tuple[Callable, str]]:
    """Returns what published checkpoints hold besides tensors; none of it runs code of the file."""
    constructors = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    kinds = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    kinds += ("float16", "float32", "float64", "str", "bytes")
    allowed: list[Callable | tuple[Callable, str]] = [argparse.Namespace, np.ndarray, np.dtype]
    allowed += [type(np.dtype(kind)) for kind in kinds]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed.append((constructors.scalar, f"{module}.scalar"))
        allowed.append((constructors._reconstruct, f"{module}._reconstruct"))
    return allowed


def _import_torch() -> Any:  # noqa: ANN401
    try:
        import torch
    except ImportError as error:
        raise ImportError("reading torch files needs torch: pip install 'mljax[torch]'") from error
    return torch


def _read_safetensors(path: Path) -> Any:  # noqa: ANN401
    _import_torch()
    try:
        import safetensors.torch as safetensors_torch
        from safetensors import SafetensorError
    except ImportError as error:
        raise ImportError(
            "reading safetensors files needs safetensors: pip install 'mljax[torch]'"
        ) from error
    try:
        return safetensors_torch.load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path}: the safetensors file is cut off or damaged ({error}); download it again"
        ) from error


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
    return any(_holds_tensors(mapping.get(known)) for known in _WEIGHT_KEYS)


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
            if isinstance(names, Mapping) and names:
                # Parity: the original scripts take the values in dict order, not by index.
                return tuple(str(name) for name in names.values())
            if isinstance(names, (list, tuple)) and names:
                return tuple(str(name) for name in names)
        for known in _NAME_INDICES:
            indices = level.get(known)
            if isinstance(indices, Mapping) and indices:
                return tuple(str(name) for name in sorted(indices, key=indices.__getitem__))
    return None
