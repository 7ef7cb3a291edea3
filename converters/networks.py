"""Networks in a state dict: which systems know them, and what precedes their names.

Training frameworks hold the network under an attribute, such as `model.`, beside losses, metrics
and averaged copies.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from converters.files.read_torch import TorchFile, is_averaged, outside_reason
from converters.systems import SYSTEMS
from converters.systems.system import System

_TRAINING_STATE = "state of a loss or a metric, so not the network's"


def find_system(tensors: Mapping[str, np.ndarray], name: str = "the source") -> System:
    """Returns the first system that a state dict is of.

    Args:
      tensors: a torch state dict without wrapper levels in its names.
      name: of the source, for messages.

    Raises:
      ValueError: if there is none.
    """
    system = _system_of(tensors)
    if system is not None:
        return system
    first = ", ".join(list(tensors)[:4])
    known = "; ".join(system.networks for system in SYSTEMS.values())
    raise ValueError(
        f"{name}: is of no known system; known are {known}. Its first tensors are {first}"
    )


def _system_of(tensors: Mapping[str, np.ndarray]) -> System | None:
    return next((system for system in SYSTEMS.values() if system.matches(tensors)), None)


def take_network(file: TorchFile) -> TorchFile:
    """Returns a file with the tensors of its network alone, by their names in the network.

    The largest prefix goes that all names of a known network have; the tensors outside are left
    out, each with its reason. Of averaged weights beside plain ones, the plain ones are taken. A
    file without a known network stays as it is.

    Raises:
      ValueError: if there are several networks.
    """
    tensors = _without_training_state(file.tensors)
    found = _find_prefixes(tensors)
    plain = [prefix for prefix in found if not is_averaged(prefix)] or found
    if len(plain) > 1:
        raise ValueError(
            f"{file.name}: holds several networks, under {' and '.join(map(repr, plain))}; choose "
            "one by --prefix (in Python, prefix=)"
        )
    prefix = plain[0] if plain else ""
    copies = [other for other in found if other != prefix]
    taken: dict[str, np.ndarray] = {}
    left_out = {**file.left_out}
    for name, tensor in file.tensors.items():
        copy = next((other for other in copies if name.startswith(other)), None)
        if name not in tensors:
            left_out[name] = _TRAINING_STATE
        elif copy is not None:
            left_out[name] = f"averaged weights, which --prefix {copy} takes"
        elif name.startswith(prefix):
            taken[name.removeprefix(prefix)] = tensor
        else:
            left_out[name] = outside_reason(prefix)
    alternatives = [f"averaged weights under {copy!r} (--prefix {copy})" for copy in copies]
    return dataclasses.replace(
        file,
        tensors=taken,
        container=file.container + (f", `{prefix}` stripped from the names" if prefix else ""),
        left_out=left_out,
        alternatives=(*file.alternatives, *alternatives),
    )


def _find_prefixes(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Returns what precedes the names of the networks, shortest first."""
    groups: dict[str, dict[str, np.ndarray]] = {"": dict(tensors)}
    for name, tensor in tensors.items():
        levels = name.split(".")
        for depth in range(1, len(levels)):
            prefix = ".".join(levels[:depth]) + "."
            groups.setdefault(prefix, {})[name.removeprefix(prefix)] = tensor
    found: list[str] = []
    for prefix in sorted(groups, key=lambda prefix: prefix.count(".")):
        above = max((other for other in found if prefix.startswith(other)), key=len, default=None)
        # Inside a network there are only its own layers, or an averaged copy of it.
        if above is not None and not is_averaged(prefix.removeprefix(above)):
            continue
        if _system_of(groups[prefix]) is not None:
            found.append(prefix)
    return found


def _without_training_state(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors whose names do not say that a loss or a metric holds them."""
    return {name: tensor for name, tensor in tensors.items() if not _is_training_state(name)}


def _is_training_state(name: str) -> bool:
    *levels, last = name.lower().split(".")
    words = ("loss", "criterion", "metric")
    if any(word in level for level in levels for word in words):
        return True
    splits = ("train_", "val_", "valid_", "test_")
    return last == "pos_weight" or any(level.startswith(splits) for level in levels)
