"""The manifest of a checkpoint folder: the SHA-256 of every file, written last.

A folder without one is an interrupted save; one whose files differ from it is damaged.
"""

import hashlib
import json
from pathlib import Path

MANIFEST = "manifest.json"
# Ends the name of a file or folder that is still being written.
INCOMPLETE = ".incomplete"


class DamagedCheckpointError(ValueError):
    """A checkpoint that is incomplete, or whose files are not the ones that were saved."""


def seal(folder: Path) -> None:
    """Writes the manifest: the SHA-256 of every file in `folder`."""
    hashes = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder)}
    temporary = folder / (MANIFEST + INCOMPLETE)
    temporary.write_text(json.dumps({"sha256": hashes, "list": _digest(hashes)}, indent=1) + "\n")
    temporary.rename(folder / MANIFEST)


def verify(folder: Path) -> None:
    """Checks every file of a checkpoint against its manifest.

    Raises:
      DamagedCheckpointError: naming the files that are missing, new or changed.
    """
    expected = _read_manifest(folder)
    found = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder)}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} was added" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has changed"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if problems:
        raise DamagedCheckpointError(
            f"checkpoint {folder} is damaged: {'; '.join(sorted(problems))}. Use another copy"
        )


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["list"] == _digest(manifest["sha256"]):
            return manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DamagedCheckpointError(
        f"checkpoint {folder} is damaged: {MANIFEST} is missing or has changed. Use another copy"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def _digest(hashes: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(folder: Path) -> list[Path]:
    """Returns the finished checkpoints in `folder`, by step."""
    found = [p for p in folder.glob("*") if p.name.isdigit() and (p / MANIFEST).is_file()]
    return sorted(found, key=lambda p: int(p.name))
