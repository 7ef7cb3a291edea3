"""A folder whose files are the networks of one model, joined to one state dict.

pix2pix's training framework writes each network to `<when>_net_<name>.pth`, and every code base
built on it, such as MulCon's.
"""

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
