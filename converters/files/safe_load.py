"""Opens torch and safetensors files; a pickle with code in it is refused, never executed."""

import argparse
import pathlib
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

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
_KINDS = (
    (stat.S_ISDIR, "a folder; give the torch file itself"),
    (stat.S_ISFIFO, "a pipe, which is read only once; write its content to a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
)
# Published checkpoints have about five levels, options of training scripts a few more.
_MAX_LEVELS = 100


def read_file(path: Path) -> tuple[str, Any]:
    """Returns a description of a torch file's format, and its content.

    Raises:
      ValueError: for a file that is empty, cut off, damaged, no checkpoint, that asks to run
        code, or whose containers contain themselves; for a pipe or a device.
      FileNotFoundError: if there is no such file.
      ImportError: if torch is not installed.
    """
    check_kind(path)
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path}: the file is empty; download it again")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip torch file", _torch_load(path)
    if head[:1] == b"\x80" and _LEGACY_MAGIC in head[:32]:
        _check_protocol(path, head)
        return "legacy torch file", _torch_load(path)
    if head[8:9] == b"{":
        return "safetensors file", _read_safetensors(path)
    raise ValueError(f"{path}: is no torch checkpoint but {_describe_format(head)}")


def check_kind(path: Path) -> None:
    """Refuses what is no regular file before it is opened: reading a pipe could wait for ever.

    Raises:
      ValueError: for a folder, pipe, socket or device.
      FileNotFoundError: if there is nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((text for is_kind, text in _KINDS if is_kind(mode)), "no regular file")
        raise ValueError(f"{path}: is {kind}")


def check_nesting(content: object, name: str) -> None:
    """Refuses containers that contain themselves, which no search comes to an end in.

    Args:
      content: of a torch file, or what a caller gave.
      name: of the source, for the message.

    Raises:
      ValueError: for such a container, or for more than 100 levels.
    """
    path: list[tuple[object, Iterator[object]]] = [(content, _inner(content))]
    above, done = {id(content)}, set[int]()
    while path:
        container, rest = path[-1]
        inner = next(rest, None)
        if inner is None:
            path.pop()
            above.remove(id(container))
            done.add(id(container))
        elif id(inner) in above:
            raise ValueError(
                f"{name}: refused, because it holds a {type(inner).__name__} that contains itself, "
                "as no checkpoint needs; save the weights alone"
            )
        elif id(inner) not in done:
            if len(path) == _MAX_LEVELS:
                raise ValueError(
                    f"{name}: refused, because its containers are nested in more than "
                    f"{_MAX_LEVELS} levels; save the weights alone"
                )
            path.append((inner, _inner(inner)))
            above.add(id(inner))


def _inner(container: object) -> Iterator[object]:
    """Yields the containers among the values, and the keys, of a container."""
    values: list[object] = []
    if isinstance(container, Mapping):
        values = [*container, *container.values()]
    elif isinstance(container, (list, tuple, set, frozenset)):
        values = list(container)
    yield from (v for v in values if isinstance(v, (Mapping, list, tuple, set, frozenset)))


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
            pickles = [m for m in members if m.filename.endswith("/data.pkl")]
            damaged, start = None, b""
            # torch.serialization.set_crc32_options(False) writes zeros, which zipfile rejects.
            if any(member.CRC for member in members):
                damaged = archive.testzip()
                if pickles and damaged is None:
                    start = archive.read(pickles[0])[:2]
    except Exception as error:  # Damaged headers raise anything, as when a name is no text.
        raise ValueError(
            f"{path}: the file is cut off or damaged ({error}); download it again"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"{path}: the file is damaged (bad checksum of {damaged}); download it again"
        )
    names = [member.filename for member in members]
    if not any(name.endswith("/data.pkl") for name in names):
        shown = ", ".join(names[:3])
        raise ValueError(f"{path}: is a zip file but no torch checkpoint; it holds {shown}")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(
            f"{path}: is a TorchScript archive, which holds code; where you trust it, open it with "
            "torch.jit.load and save its state_dict()"
        )
    _check_protocol(path, start)


def _check_protocol(path: Path, start: bytes) -> None:
    """Raises ValueError for a pickle that torch's restricted unpickler does not know."""
    if start[:1] == b"\x80" and start[1] > 3:
        raise ValueError(
            f"{path}: was saved with pickle protocol {start[1]}, which torch opens only by running "
            "what it holds; where you trust it, save it again with torch.save's own protocol, 2"
        )


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
    for before in ("GLOBAL ", "but got <class "):
        _, _, rest = str(error).partition(before)
        if rest.split():
            return rest.split()[0].strip("'>")
    return None


def _allowed_globals() -> list[Callable | tuple[Callable, str]]:
    """Returns what published checkpoints hold besides tensors; none of it runs code of the file."""
    constructors = np._core.multiarray  # pyright: ignore[reportAttributeAccessIssue]
    kinds = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    kinds += ("float16", "float32", "float64", "str", "bytes")
    allowed: list[Callable | tuple[Callable, str]] = [argparse.Namespace, np.ndarray, np.dtype]
    # Among the options and the histories of training scripts.
    allowed += [list, dict, int, float]
    for module in ("pathlib", "pathlib._local"):  # The second is Python 3.13's.
        for flavor in (pathlib.PurePosixPath, pathlib.PureWindowsPath):
            name = flavor.__name__
            allowed += [(flavor, f"{module}.{name}"), (flavor, f"{module}.{name[4:]}")]
    allowed += [(_empty_dict, "collections.defaultdict")]
    allowed += [type(np.dtype(kind)) for kind in kinds]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed.append((constructors.scalar, f"{module}.scalar"))
        allowed.append((constructors._reconstruct, f"{module}._reconstruct"))
    return allowed


def _empty_dict(*_: object) -> dict[Any, Any]:
    """Stands for a defaultdict, whose entries are set afterwards."""
    return {}


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
