"""Arguments of parts, checked against the signature of what they are for."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from flax import nnx

from mljax.backbones import BACKBONES
from mljax.config.signatures import bind, is_accepted, suggest
from mljax.data import READERS


def _plot(split, *, size, color=0):
    return split, size, color


class _Head(nnx.Module):
    def __init__(self, num_features: int, *, depth: int = 1, dtype=None, rngs: nnx.Rngs):
        del num_features, depth, dtype, rngs


def test_bind_accepts_known_arguments():
    bind(_plot, {"size": 1, "color": 2}, "reader plot")
    bind(functools.partial(_plot, size=3), {}, "reader plot")
    bind(_Head, {"depth": 2}, "head test")


@pytest.mark.parametrize(
    ("function", "kwargs", "message"),
    [
        (_plot, {"size": 1, "colour": 2}, "reader plot takes no argument 'colour'; .* color"),
        (_plot, {"split": "val"}, "reader plot takes no argument 'split'"),
        (_plot, {"color": 2}, "reader plot needs the argument size"),
        (functools.partial(_plot, color=1), {}, "reader plot needs the argument size"),
        (_Head, {"deep": 2}, "reader plot takes no argument 'deep'; did you mean depth"),
        (_Head, {"rngs": 2}, "reader plot takes no argument 'rngs'; known: depth"),
        (_Head, {"dtype": "float32"}, "reader plot takes no argument 'dtype'; known: depth"),
    ],
)
def test_bind_names_the_argument_that_does_not_fit(function, kwargs, message):
    with pytest.raises(ValueError, match=message):
        bind(function, kwargs, "reader plot")


def test_suggest_gives_close_names_or_all():
    assert suggest("cutuot", ["cutout", "randaugment"]) == "; did you mean cutout?"
    assert suggest("x", ["randaugment", "cutout"]) == "; known: cutout, randaugment"
    assert suggest("x", []) == "; known: none"


@pytest.mark.parametrize(
    ("value", "annotation", "accepted"),
    [
        (1, int, True),
        (1, float, True),
        (1.5, int, False),
        (True, int, False),
        (True, bool, True),
        ("a", Path, True),
        (3, str | Path, False),
        (None, int | None, True),
        (None, int, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ((1, 2), Sequence[int], True),
        ((1, "x"), Sequence[int], False),
        ("ab", Sequence[str], False),
        ((), Sequence[str], True),
        ((1.0, 2.0), tuple[float, float], True),
        ((1.0,), tuple[float, float], False),
        ({"a": 1}, Mapping[str, Any], True),
        (1, Mapping[str, Any], False),
        ((0.1, 0.2), np.ndarray | str, True),
        (0.1, np.ndarray | str, False),
        (object(), Any, True),
    ],
)
def test_a_value_is_accepted_by_the_annotation_it_fits(value, annotation, accepted):
    assert is_accepted(value, annotation) == accepted


@pytest.mark.parametrize(
    ("table", "name", "kwargs", "message"),
    [
        (READERS, "csv", {"root": 2024}, """'root' must be text, got 2024; .* root='"2024"'"""),
        (READERS, "digits", {"num_images": "abc"}, "must be a whole number or None, got 'abc'"),
        (BACKBONES, "tresnet_m", {"width": "abc"}, "'width' must be a whole number, got 'abc'"),
    ],
)
def test_an_argument_of_another_type_is_named(table, name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        bind(table[name], kwargs, f"part {name}")
