"""The manifest of a checkpoint folder: the SHA-256 of every file, written last.

A folder without one was not finished; one whose files differ from it is damaged. Files that the
manifest does not list are left alone, since file managers, clouds and network file systems add
their own, unless they have the name of one that is read.
"""

import hashlib
import json
from pathlib import Path

from mljax.config.text_files import INCOMPLETE, named, write_text

MANIFEST = "manifest.json"

# What is read if it is there: beside the manifest, and by orbax in its folders.
_READ = {"model.json", "config.json", "recipe.json"}
_READ_BY_ORBAX = {"_METADATA", "_CHECKPOINT_METADATA", "_sharding", "manifest.ocdbt", "metadata"}

__all__ = [
    "INCOMPLETE",
    "MANIFEST",
    "DamagedCheckpointError",
    "check_step",
    "exists",
    "is_listed",
    "seal",
    "sealed",
    "verify",
    "write_listed",
]


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete, or whose files are not the ones that were saved."""


def seal(folder: Path, *, step: int | None = None) -> None:
    """Writes the manifest: the SHA-256 of every file in `folder`.

    Args:
      folder: of the checkpoint.
      step: whose state it holds, for `check_step`.
    """
    _write_manifest(folder, {_relative(p, folder): _sha256(p) for p in _files(folder)}, step)


def write_listed(folder: Path, name: str, text: str) -> None:
    """Writes a file into a finished checkpoint, in the place of one of this name if there is one.

    Whenever the process ends, the checkpoint is whole: with the file that was there, without any,
    or with the new one, since what the manifest does not list is not read.

    Args:
      folder: of the checkpoint.
      name: of the file; nothing else that the manifest lists may depend on it.
      text: its content.

    Raises:
      DamagedCheckpointError: for a manifest that is missing or has changed.
      OSError: naming the file.
    """
    hashes, step = _read_manifest(folder)
    if hashes.pop(name, None) is not None:
        _write_manifest(folder, hashes, step)
    write_text(folder / name, text)
    _write_manifest(folder, hashes | {name: _sha256(folder / name)}, step)


def is_listed(folder: Path, name: str) -> bool:
    """Returns whether the manifest of a checkpoint lists a file.

    Raises:
      DamagedCheckpointError: for a manifest that is missing or has changed.
    """
    return name in _read_manifest(folder)[0]


def verify(folder: Path) -> None:
    """Checks every file of a checkpoint against its manifest.

    Raises:
      DamagedCheckpointError: naming the files that are missing, new or changed.
      OSError: for a file that cannot be read for another reason than that it is missing.
    """
    expected, _ = _read_manifest(folder)
    found = {name: _sha256_if_there(folder / name) for name in expected}
    added = [name for p in _files(folder) if (name := _relative(p, folder)) not in expected]
    problems = [f"{name} is missing" for name, digest in found.items() if digest is None]
    problems += [f"{name} was added" for name in added if _is_read(name)]
    problems += [
        f"{name} has changed"
        for name, digest in found.items()
        if digest is not None and digest != expected[name]
    ]
    if problems:
        raise DamagedCheckpointError(
            f"checkpoint {folder} is damaged: {'; '.join(sorted(problems))}. Use another copy"
        )


def check_step(folder: Path) -> None:
    """Checks that a checkpoint of a run holds the step that its folder is named by.

    Raises:
      DamagedCheckpointError: naming both.
    """
    _, step = _read_manifest(folder)
    if step is not None and folder.name != str(step):
        raise DamagedCheckpointError(
            f"checkpoint {folder} is damaged: it holds step {step}, so the folder was renamed; "
            "name it by its step again"
        )


def sealed(folder: Path) -> list[Path]:
    """Returns the finished checkpoints in `folder`, by step; none if there is no such folder.

    Raises:
      OSError: for a folder that cannot be read.
    """
    if not exists(folder):
        return []
    found = [p for p in folder.iterdir() if p.name.isdecimal() and exists(p / MANIFEST)]
    return sorted(found, key=lambda p: int(p.name))


def exists(path: Path) -> bool:
    """Returns whether there is such a file or folder.

    Raises:
      OSError: if that cannot be found out, where `Path.exists` may say no.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _write_manifest(folder: Path, hashes: dict[str, str], step: int | None) -> None:
    manifest = {"sha256": hashes, "list": _digest(hashes, step)}
    if step is not None:
        manifest["step"] = step
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _read_manifest(folder: Path) -> tuple[dict[str, str], int | None]:
    """Returns the listed hashes by name, and the step if there is one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        hashes, step = manifest["sha256"], manifest.get("step")
        if manifest["list"] == _digest(hashes, step):
            return hashes, step
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        raise named(error, folder / MANIFEST) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DamagedCheckpointError(
        f"checkpoint {folder} is damaged: {MANIFEST} is missing or has changed. Use another copy"
    )


def _is_read(name: str) -> bool:
    *folders, last = name.split("/")
    if not folders:
        return last in _READ
    return last in _READ_BY_ORBAX and not any(part.startswith(".") for part in folders)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _digest(hashes: dict[str, str], step: int | None) -> str:
    content = hashes if step is None else [step, hashes]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256_if_there(path: Path) -> str | None:
    try:
        return _sha256(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise named(error, path) from error
