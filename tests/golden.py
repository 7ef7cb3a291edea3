"""The golden cases: what the published PyTorch systems compute.

`tests/goldens/<group>.json` lists the cases of a group; a case's arrays lie in the `.npz` beside
it. Weights and inputs are not stored but filled by name, so that a case for a network of fifty
million parameters takes a few kilobytes. Everything here is in torch's layout and naming.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "goldens"


def _generator(name):
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def fill(name, shape, kind):
    """Returns the float32 value that the reference run gave the parameter `name`."""
    rng = _generator(name)
    shape = tuple(shape)
    if kind == "count":
        return np.zeros(shape, np.int64)
    if kind == "weight":
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
        value = rng.standard_normal(shape) * np.sqrt(2.0 / max(fan_in, 1))
    elif kind in ("bias", "mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif kind in ("scale", "var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif kind == "signed_scale":
        value = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    elif kind == "table":
        value = rng.standard_normal(shape)
    elif kind == "zero_gain":
        value = rng.uniform(0.05, 0.25, shape)
    else:
        raise ValueError(f"unknown kind {kind!r} of parameter {name!r}")
    return np.asarray(value, np.float32)


def fill_input(name, shape, low=0.0, high=1.0):
    """Returns the float32 input `name`, uniform in [low, high)."""
    return _generator(name).uniform(low, high, tuple(shape)).astype(np.float32)


@cache
def cases(group):
    """Returns {case name: row} of a group, in file order."""
    rows = json.loads((FOLDER / f"{group}.json").read_text())["cases"]
    return {row["case"]: row for row in rows}


def names(group, *prefixes):
    """Returns the names of a group's cases, or of those that start with one of `prefixes`."""
    return [name for name in cases(group) if name.startswith(prefixes or "")]


def arrays(group, case):
    """Returns the arrays of a case as {key: array}."""
    with np.load(FOLDER / cases(group)[case]["npz"]) as file:
        return dict(file)


def state_dict(group, case):
    """Returns the case's torch state dict as {name: array}: a checkpoint of that system."""
    params = cases(group)[case]["params"]
    return {name: fill(name, shape, kind) for name, (shape, kind) in params.items()}
