"""Whether the arguments of a config fit the signature of what they are for."""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

# Arguments of networks that `create_model` passes itself: no config may name them.
_FROM_MLJAX = ("dtype", "rngs")
_ACCEPTED: dict[Any, tuple[type, ...]] = {
    float: (int, float),
    int: (int,),
    bool: (bool,),
    str: (str,),
    Path: (str, Path),
    type(None): (type(None),),
}


def suggest(name: str, known: Sequence[str]) -> str:
    """Returns the end of an error message: what `name` may have meant, or all that is known."""
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return "; did you mean " + " or ".join(close) + "?"
    return "; known: " + (", ".join(sorted(known)) or "none")


def bind(function: Callable[..., Any], kwargs: Mapping[str, Any], what: str) -> None:
    """Checks that a config's `kwargs` are all that `function` needs from it, and no more.

    Raises:
      ValueError: naming `what`, and the unknown argument with what it may have meant, the one of
        another type, or those that are missing.
    """
    given = set(kwargs)
    while isinstance(function, functools.partial):
        given |= set(function.keywords)
        function = function.func
    # The metaclass of NNX modules hides the signature of their classes.
    called = function.__init__ if inspect.isclass(function) else function
    parameters = inspect.signature(called).parameters.values()
    known = [p for p in parameters if _is_for_config(p)]
    names = [p.name for p in known]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in kwargs:
        if name not in names and not takes_any:
            raise ValueError(f"{what} takes no argument {name!r}{suggest(name, names)}")
    for p in known:
        if p.name in kwargs and not is_accepted(kwargs[p.name], p.annotation):
            value = kwargs[p.name]
            hint = ""
            if isinstance(value, (int, float)) and is_accepted(str(value), p.annotation):
                hint = f"; for the text, write {p.name}='\"{value}\"'"
            raise ValueError(
                f"{what}: argument {p.name!r} must be {describe_type(p.annotation)}, got "
                f"{value!r}{hint}"
            )
    missing = [
        p.name
        for p in known
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in given
    ]
    if missing:
        raise ValueError(f"{what} needs the argument {' and '.join(missing)}")


def _is_for_config(p: inspect.Parameter) -> bool:
    """Returns whether a config may give an argument; what comes first is mljax's to give."""
    optional = p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty
    return (p.kind is p.KEYWORD_ONLY or optional) and p.name not in _FROM_MLJAX


def is_accepted(value: Any, annotation: Any) -> bool:  # noqa: ANN401
    """Returns whether an argument out of a config fits an annotation.

    Configs hold numbers, texts, None, and lists and dicts of them; a path is a text. What such a
    value is checked against is told from the annotation; annotations of other things, such as
    arrays, accept lists, and inside them anything.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, inspect.Parameter.empty) or isinstance(
        annotation, (str, typing.TypeVar)
    ):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(is_accepted(value, kind) for kind in arguments)
    if origin is Literal:
        return value in arguments
    if annotation in _ACCEPTED:
        wrong_bool = isinstance(value, bool) and annotation is not bool
        return isinstance(value, _ACCEPTED[annotation]) and not wrong_bool
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if not isinstance(value, (list, tuple)):
        # Numbers and texts are none of the other things; arrays and callables may be.
        return not isinstance(value, (int, float, str, Mapping, type(None)))
    if origin is None or not issubclass(origin, Sequence):
        return True
    kinds = arguments[:1] * len(value) if len(arguments) < 2 or arguments[-1] is ... else arguments
    return len(kinds) == len(value) and all(map(is_accepted, value, kinds))


def describe_type(annotation: Any) -> str:  # noqa: ANN401
    """Returns an annotation in words for an error message."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe_type, typing.get_args(annotation))))
    words = {str: "text", Path: "text", type(None): "None", int: "a whole number"}
    words |= {float: "a number", bool: "True or False"}
    if annotation in words:
        return words[annotation]
    return str(annotation) if typing.get_args(annotation) else annotation.__name__
