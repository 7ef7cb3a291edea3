"""A folder whose files are the networks of one model: joined to one state dict, and back.

pix2pix's training framework writes each network to `<when>_net_<name>.pth`, and every code base
built on it, such as MulCon's.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.files.safe_load import read_file

_MARK = "_net_"


def read_folder(folder: Path, key: str | None) -> dict[str, Any]:
    """Returns the tensors of all networks of one time, as `net<name>.<tensor>`.

    Args:
      folder: holds the files; others than `*_net_*.pth` are left alone.
      key: what stands before `_net_`, such as `ema_epoch_15`; None where there is only one.

    Raises:
      ValueError: for a folder without such files, or with several times and no key among them.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob(f"*{_MARK}*.pth")):
        when, _, network = path.stem.rpartition(_MARK)
        found.setdefault(when, {})[network.replace("_", ".")] = path
    if not found:
        raise ValueError(
            f"{folder} is a folder; give the torch file itself, or a folder of networks in files "
            f"such as latest{_MARK}A.pth"
        )
    if key is None and len(found) == 1:
        key = next(iter(found))
    if key not in found:
        listed = ", ".join(sorted(found))
        raise ValueError(f"{folder}: choose one of {listed} by --key (in Python, key=), got {key}")
    tensors: dict[str, Any] = {}
    for network, path in found[key].items():
        _, content = read_file(path)
        tensors |= {f"net{network}.{name}": tensor for name, tensor in content.items()}
    return tensors


def write_folder(
    tensors: Mapping[str, Any], folder: str | os.PathLike, *, when: str = "latest"
) -> list[Path]:
    """Writes the networks of a state dict, as `to_torch` returns it, to a file each.

    `net<name>.<tensor>` goes to `<when>_net_<name>.pth`, as the original's loader takes it; where a
    number follows the name, as in `netC.3.weight`, there is a network, `..._net_C_3.pth`, of each.

    Args:
      tensors: of torch, by the names that `read_folder` gives.
      folder: is made if it is not there.
      when: what stands before `_net_`, such as `ema_epoch_15`.

    Returns:
      The files.

    Raises:
      ValueError: for a name that is of no network, or a value that is no tensor of torch.
      ImportError: if torch is not installed.
    """
    import torch

    networks: dict[str, dict[str, Any]] = {}
    for full, tensor in tensors.items():
        network, _, name = full.partition(".")
        if not network.startswith("net") or not name:
            raise ValueError(f"{folder}: {full} is of no network; expected netA.weight or the like")
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{folder}: {full} is a {type(tensor).__name__}, expected a tensor")
        networks.setdefault(network.removeprefix("net"), {})[name] = tensor
    files: dict[str, dict[str, Any]] = {}
    for network, entries in networks.items():
        numbers = {name.partition(".")[0] for name in entries}
        one_each = numbers == set(map(str, range(len(numbers))))
        for name, tensor in entries.items():
            number, _, rest = name.partition(".")
            file, name = (f"{network}_{number}", rest) if one_each else (network, name)
            files.setdefault(file, {})[name] = tensor
    Path(folder).mkdir(parents=True, exist_ok=True)
    written = []
    for network, entries in files.items():
        path = Path(folder) / f"{when}{_MARK}{network}.pth"
        torch.save(entries, path)
        written.append(path)
    return written
