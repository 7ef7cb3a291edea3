"""Conversion tables: which torch tensors make which arrays of a network, checked both ways.

A table is an ordered list of rows (source names, target paths, transform) plus the source names
that nothing reads, each with its reason. Every system is one more table; this file holds what all
of them share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from flax import nnx

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Transform:
    """How a row's torch tensors become its target arrays, and back; layouts only, or values too."""

    name: str
    to_jax: Callable[..., Arrays]
    to_torch: Callable[..., Arrays]


copy = Transform("copy", lambda x: (x,), lambda x: (x,))
linear = Transform("linear", lambda w: (w.T,), lambda k: (k.T,))
# Serves depthwise convolutions too: torch's [c, 1, h, w] is flax's [h, w, 1, c].
conv = Transform("conv", lambda w: (w.transpose(2, 3, 1, 0),), lambda k: (k.transpose(3, 2, 0, 1),))
# A 1x1 convolution on one pixel, which is a linear layer here.
pointwise = Transform("pointwise", lambda w: (w[:, :, 0, 0].T,), lambda k: (k.T[:, :, None, None],))
# An array with an axis of length 1 before its own.
first = Transform("first", lambda x: (x[0],), lambda x: (x[None],))


@dataclass(frozen=True)
class Row:
    """One step of a conversion: these sources, through this transform, are these targets.

    Attributes:
      sources: names in the torch state dict.
      targets: dotted paths in the network, such as `backbone.stages.0.1.conv1.norm.scale`.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transform: Transform


def row(source: str, target: str, transform: Transform) -> Row:
    """Returns the row of one source and one target."""
    return Row((source,), (target,), transform)


@dataclass(frozen=True)
class Table:
    """Rows in the order of the original's state dict.

    Attributes:
      rows: all of them are needed. A row without targets is for the export alone: what the
        original demands and no network here holds.
      unused: sources that may be there and that nothing reads: {name: reason}.
      kept: paths in the network that the source does not hold, left as they are: {path: reason}.
    """

    rows: tuple[Row, ...]
    unused: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)


def join(*tables: Table) -> Table:
    """Returns one table with the rows of all, in order."""
    return Table(
        rows=tuple(row for table in tables for row in table.rows),
        unused={name: reason for table in tables for name, reason in table.unused.items()},
        kept={path: reason for table in tables for path, reason in table.kept.items()},
    )


def renamed(table: Table, rename: Callable[[str], str]) -> Table:
    """Returns the table of the same network where the sources have other names."""
    return Table(
        rows=tuple(
            Row(tuple(map(rename, entry.sources)), entry.targets, entry.transform)
            for entry in table.rows
        ),
        unused={rename(name): reason for name, reason in table.unused.items()},
        kept=table.kept,
    )


def under(prefix: str, table: Table) -> Table:
    """Returns the table of the same network where a prefix precedes the names of its sources."""
    return renamed(table, lambda name: prefix + name)


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
      mapped: number of source tensors that the network now holds.
      unused: sources that nothing reads: {name: reason}.
      parameters: number of trainable values in the network.
    """

    mapped: int
    unused: dict[str, str]
    parameters: int


def import_tensors(
    table: Table, tensors: Mapping[str, np.ndarray], model: nnx.Module, name: str = "the source"
) -> ImportReport:
    """Fills every variable of `model`, which may be abstract, from `tensors`.

    Args:
      table: the rows.
      tensors: a torch state dict.
      model: changed only if everything fits.
      name: of the source, for messages.

    Raises:
      ValueError: if a tensor is missing, left over, misshapen, not of real numbers or not finite,
        or a variable stays empty; one message lists them all.
    """
    variables = _variables(model, table)
    rows = [entry for entry in table.rows if entry.targets]
    values: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for entry in rows:
        values |= _convert_row(entry, tensors, variables, problems)
    known = {source for entry in rows for source in entry.sources}
    for source, tensor in tensors.items():
        if source not in known and source not in table.unused:
            problems.append(f"extra: {source} {_shape(tensor.shape)}")
    targets = {target for entry in rows for target in entry.targets}
    problems += [f"the table has no row for {path}" for path in variables if path not in targets]
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"{name} does not fit the network: {len(problems)} problems\n  {listed}\n"
            "A missing or extra layer means another variant or a cut-down file; convert the "
            "whole state dict of the trained network"
        )
    for path, variable in variables.items():
        # A copy: on the CPU, JAX could otherwise share the memory of the caller's array.
        variable.set_value(jnp.array(values[path], dtype=variable.dtype))
    return ImportReport(
        mapped=len(known),
        unused={source: table.unused[source] for source in tensors if source in table.unused},
        parameters=sum(v.size for v in variables.values() if isinstance(v, nnx.Param)),
    )


def export_tensors(table: Table, model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns the torch state dict of `model`, in the order of the table.

    Raises:
      ValueError: if the table and the network do not have the same variables.
    """
    variables = _variables(model, table)
    targets = {target for entry in table.rows for target in entry.targets}
    if targets != variables.keys():
        different = sorted(targets ^ variables.keys())
        raise ValueError(f"the table does not fit the network at {', '.join(different)}")
    tensors: dict[str, np.ndarray] = {}
    for entry in table.rows:
        arrays = [np.asarray(variables[target].get_value()) for target in entry.targets]
        converted = entry.transform.to_torch(*arrays)
        for source, array in zip(entry.sources, converted, strict=True):
            tensors[source] = np.array(array, order="C")
    return tensors


def _variables(model: nnx.Module, table: Table) -> dict[str, nnx.Variable]:
    """Returns {dotted path: variable} of everything but random streams and what is kept."""
    state = nnx.state(model, nnx.Not(nnx.RngState))
    paths = {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}
    return {path: variable for path, variable in paths.items() if path not in table.kept}


def _convert_row(
    entry: Row,
    tensors: Mapping[str, np.ndarray],
    variables: Mapping[str, nnx.Variable],
    problems: list[str],
) -> dict[str, np.ndarray]:
    """Returns {target: array}; adds what is wrong to `problems` instead of raising."""
    absent = [target for target in entry.targets if target not in variables]
    if absent:
        problems.extend(f"the network has no {target} for {entry.sources}" for target in absent)
        return {}
    # The inverse of the transform tells what shape each source must have.
    empty = [np.broadcast_to(np.float32(0), variables[target].shape) for target in entry.targets]
    shapes = [array.shape for array in entry.transform.to_torch(*empty)]
    fits = True
    for source, shape in zip(entry.sources, shapes, strict=True):
        if source not in tensors:
            problems.append(f"missing: {source} {_shape(shape)}")
        elif tensors[source].shape != shape:
            got = _shape(tensors[source].shape)
            problems.append(f"misshapen: {source} is {got}, expected {_shape(shape)}")
        elif not _is_real(tensors[source]):
            problems.append(f"no real numbers: {source} is {tensors[source].dtype}")
        elif not _is_finite(tensors[source]):
            problems.append(f"not finite: {source} holds nan or infinity")
        else:
            continue
        fits = False
    if not fits:
        return {}
    arrays = entry.transform.to_jax(*(tensors[source] for source in entry.sources))
    return dict(zip(entry.targets, arrays, strict=True))


def _is_real(tensor: np.ndarray) -> bool:
    return jnp.issubdtype(tensor.dtype, jnp.floating) or jnp.issubdtype(tensor.dtype, jnp.integer)


def _is_finite(tensor: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(tensor.astype(np.float32, copy=False)).all())


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
