"""The training loss: each term's arguments come by name from the head's dict and the batch."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from mljax.config.part import Part, resolve, resolved
from mljax.config.schema import LossConfig
from mljax.config.signatures import bind

Batch = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Term:
    """A loss with its arguments, reduction and weight; see `LossConfig`."""

    name: str
    function: Callable[..., Array]
    kwargs: dict[str, Any]
    reduction: Literal["sum", "mean"]
    weight: float


def check_losses(losses: Sequence[LossConfig]) -> None:
    """Checks names and arguments of the losses of a config, before any data is read.

    Raises:
      ValueError: for an unknown name or argument.
    """
    for loss in losses:
        bind(resolve(loss.name, "loss"), loss.kwargs, f"loss {loss.name}")
        for value in loss.kwargs.values():
            if isinstance(value, Part):
                resolved(value, "class value")


def make_terms(losses: Sequence[LossConfig], class_names: Sequence[str]) -> tuple[Term, ...]:
    """Returns the terms of a config; a part among their arguments is called with the class names.

    Raises:
      ValueError: as `check_losses`.
      FileNotFoundError: for a file that an argument is to be read from.
    """
    check_losses(losses)

    def of_classes(value: Any) -> Any:  # noqa: ANN401
        return resolved(value, "class value")(class_names) if isinstance(value, Part) else value

    return tuple(
        Term(
            # A plug-in's `module:function` is shown as its function.
            name=loss.name.rpartition(":")[2],
            function=resolve(loss.name, "loss"),
            kwargs={name: of_classes(value) for name, value in loss.kwargs.items()},
            reduction=loss.reduction,
            weight=loss.weight,
        )
        for loss in losses
    )


def total_loss(
    terms: Sequence[Term], outputs: dict[str, Array], batch: Batch
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Returns the weighted sum of all terms, and each of them.

    Entries of examples that are not valid count as zero. A mean is divided by the rows of the whole
    batch: of a micro-batch, `share` says which part of it these rows are.

    Args:
      terms: the losses.
      outputs: of the head.
      batch: `labels`, `valid`, ..., and in a micro-batch `share`.

    Raises:
      ValueError: for a loss that reads what neither the head nor the batch has, or that fails, with
        the shapes that it was given.
    """
    available = {**batch, **outputs}
    values = {}
    for term in terms:
        found = _call(term, _arguments(term, available))
        valid = batch["valid"]
        if found.shape[0] == valid.shape[0]:
            mask = valid.reshape(-1, *[1] * (found.ndim - 1))
            found = jnp.where(mask, found, 0)
        value = found.sum()
        if term.reduction == "mean":
            value = value * (batch.get("share", 1.0) / found.shape[0])
        values[term.name] = value
    weighted = [term.weight * values[term.name] for term in terms]
    return functools.reduce(jnp.add, weighted), values


def _call(term: Term, arrays: dict[str, Array]) -> Array:
    try:
        return term.function(**arrays, **term.kwargs)
    except (TypeError, ValueError) as error:
        shapes = ", ".join(f"{name} {jnp.shape(array)}" for name, array in arrays.items())
        raise ValueError(f"loss {term.name}, given {shapes}: {error}") from error


def _arguments(term: Term, available: dict[str, Array]) -> dict[str, Array]:
    parameters = inspect.signature(term.function).parameters.values()
    names = [p.name for p in parameters if p.name in available and p.name not in term.kwargs]
    missing = [
        p.name
        for p in parameters
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.default is p.empty
        and p.name not in names
        and p.name not in term.kwargs
    ]
    if missing:
        raise ValueError(
            f"loss {term.name} reads {', '.join(missing)}, but the head and the batch give only "
            f"{', '.join(sorted(available))}: choose another head or loss"
        )
    return {name: available[name] for name in names}
