"""Configs from Python files, JSON and the command line, and back to JSON."""

import ast
import dataclasses
import re
import runpy
import traceback
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mljax.config.part import Part
from mljax.config.schema import Config
from mljax.config.shipped import find_shipped
from mljax.config.signatures import bind, suggest
from mljax.config.text_files import write_text

T = TypeVar("T")


def load_config(source: str | Path) -> Config:
    """Returns the config that a file or a name stands for.

    Args:
      source: a Python file that defines `get_config()`, the `config.json` of a run, or the name of
        a config that ships, such as `quickstart`. Arguments of `get_config` follow a colon:
        `configs/asl/coco.py:size=l`, `asl/coco:size=l`.

    Raises:
      ValueError: for a file that cannot be run or read, has no `get_config`, or returns something
        else, and for arguments that it does not take.
      FileNotFoundError: for no such file.
    """
    text = str(source)
    path, colon, rest = Path(text), "", ""
    if not path.is_file():
        before, colon, rest = text.partition(":")
        path = Path(before)
    if not path.is_file():
        path = find_shipped(path)
    if path.suffix == ".json":
        return from_json(Config, path.read_text("utf-8"), str(path))
    arguments = parse_arguments(rest, f"--config {text}") if colon else {}
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
    except Exception as error:
        raise _located(error, path) from error
    if get_config is None:
        raise ValueError(f"{path} defines no get_config()")
    bind(get_config, arguments, str(path))
    try:
        config = get_config(**arguments)
    except Exception as error:
        raise _located(error, path) from error
    if not isinstance(config, Config):
        raise ValueError(f"{path}: get_config() must return a mljax Config, got {type(config)}")
    return _convert(_builtins(config), Config, str(path))


def parse_arguments(text: str, where: str) -> dict[str, Any]:
    """Returns the arguments in `size=l,epochs=2`.

    Raises:
      ValueError: for what is no list of name=value, beginning with `where`.
    """
    # A comma inside brackets belongs to the value.
    pairs = [pair.partition("=") for pair in re.split(r",(?=\w+=)", text)]
    if not all(name and separator for name, separator, _ in pairs):
        raise ValueError(f"{where}: expected name=value after the colon, got {text!r}")
    return {name: parse_value(value) for name, _, value in pairs}


def parse_value(text: str) -> Any:  # noqa: ANN401
    """Returns a Python literal; what is none is taken as text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _located(error: Exception, path: Path) -> ValueError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    return ValueError(f"{path}, line {line}: {type(error).__name__}: {error}")


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Returns `config` with each `path=value` applied, in order.

    Values are Python literals; what is none is taken as text. A text in place of a part is the name
    of one without arguments: `data.reader=voc`.

    Raises:
      ValueError: for an unknown path (with close matches), or a value of the wrong type.
    """
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path:
            raise ValueError(f"expected path=value, got {assignment!r}")
        tree = _builtins(config)
        _assign(tree, path.split("."), parse_value(text), path)
        config = _convert(_with_parts(tree, Config), Config, path)
    return config


def unread_fields(assignments: Sequence[str], read: Sequence[str]) -> list[str]:
    """Returns those `path=value` that change no field that is in `read`, whole or in part."""

    def is_read(path: str) -> bool:
        return any(f"{path}.".startswith(f"{field}.") for field in read) or any(
            field.startswith(f"{path}.") for field in read
        )

    return [a for a in assignments if not is_read(a.partition("=")[0])]


def _assign(tree: Any, keys: list[str], value: Any, path: str) -> None:  # noqa: ANN401
    """Puts a value into a tree of dicts and lists, in place."""
    free = False
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(tree, list):
            if not key.isdecimal() or int(key) >= len(tree):
                raise ValueError(f"{path}: no entry {key!r}; there are {len(tree)}, from 0")
            index: Any = int(key)
        elif isinstance(tree, dict):
            if key not in tree and not (free and last):
                raise ValueError(f"{path}: unknown field {key!r}{suggest(key, list(tree))}")
            index = key
        else:
            raise ValueError(f"{path}: nothing to set under {tree!r}")
        if last:
            before = tree[index] if isinstance(tree, list) else tree.get(index)
            # In the arguments of a part, what is a part is told by what was there.
            named = isinstance(value, str) and _is_part(before)
            tree[index] = {"name": value, "kwargs": {}} if named else value
            return
        # Arguments can be new; the fields of a dataclass are all there.
        free = key == "kwargs" or (free and not _is_part(tree[index]))
        tree = tree[index]


def _with_parts(tree: Any, kind: Any) -> Any:  # noqa: ANN401
    """Returns a tree of dicts and lists in which each text in place of a part is a part's name."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(x for x in arguments if x is not type(None))
        return _with_parts(tree, inner)
    if origin is tuple and isinstance(tree, (list, tuple)):
        return [_with_parts(value, arguments[0]) for value in tree]
    if not dataclasses.is_dataclass(kind):
        return tree
    if isinstance(tree, str) and isinstance(kind, type) and issubclass(kind, Part):
        return {"name": tree}
    if not isinstance(tree, dict):
        return tree
    kinds = typing.get_type_hints(kind)
    return {name: _with_parts(value, kinds.get(name)) for name, value in tree.items()}


def _is_part(tree: Any) -> bool:  # noqa: ANN401
    return isinstance(tree, dict) and tree.keys() == {"name", "kwargs"}


def to_json(config: Any) -> str:  # noqa: ANN401
    """Returns a config, or any dataclass like it, as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()


def write_config(file: Path, config: Config, *, resumed: bool) -> str:
    """Writes a config as JSON.

    Returns:
      A line for people if a resumed run had another one, or none that is whole; else "".
    """
    text = to_json(config) + "\n"
    line = ""
    if resumed and file.is_file():
        try:
            changed = changed_fields(file.read_text("utf-8"), text)
        except ValueError:
            line = f"{file} was empty or cut: it is written anew"
        else:
            if changed:
                line = (
                    f"the run in {file.parent} goes on with a changed config: {', '.join(changed)}"
                )
    write_text(file, text)
    return line


def changed_fields(old: str, new: str) -> list[str]:
    """Returns the dotted paths in which two configs, as JSON, differ."""

    def flatten(node: Any, path: str) -> dict[str, Any]:  # noqa: ANN401
        items = enumerate(node) if isinstance(node, list) else getattr(node, "items", list)()
        flat = {}
        for key, value in items:
            flat |= flatten(value, f"{path}.{key}".lstrip("."))
        return flat or {path: node}

    a, b = (flatten(msgspec.json.decode(text), "") for text in (old, new))
    changed = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
    # An empty list or dict that was filled is told by what fills it.
    return sorted(k for k in changed if not any(other.startswith(f"{k}.") for other in changed))


def from_json(kind: type[T], text: str, where: str = "JSON") -> T:
    """Returns the dataclass `kind` (a config, or a part of one) from its JSON.

    Raises:
      ValueError: for an unknown or missing field, or one of the wrong type, naming its path.
    """
    try:
        tree = msgspec.json.decode(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    return _convert(tree, kind, where)


def _builtins(config: Any) -> Any:  # noqa: ANN401
    """Returns a dataclass as dicts and lists of its own."""
    return msgspec.json.decode(msgspec.json.encode(config))


def _convert(tree: Any, kind: type[T], where: str) -> T:  # noqa: ANN401
    for path, name, known in _unknown_fields(tree, kind, ""):
        raise ValueError(f"{where}: unknown field {path}{name!r}{suggest(name, known)}")
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        path = path.strip("`").removeprefix(".")
        raise ValueError(f"{where}: {path + ': ' if path else ''}{message}") from error


def _unknown_fields(
    tree: Any,  # noqa: ANN401
    kind: Any,  # noqa: ANN401
    path: str,
) -> Iterator[tuple[str, str, list[str]]]:
    """Yields (path, name, known names) of the fields that no dataclass has."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(tree, dict):
        kinds = typing.get_type_hints(kind)
        for name, value in tree.items():
            if name not in kinds:
                yield path, name, list(kinds)
            else:
                yield from _unknown_fields(value, kinds[name], f"{path}{name}.")
    elif origin in (typing.Union, types.UnionType):
        inner = next(x for x in arguments if x is not type(None))
        yield from _unknown_fields(tree, inner, path)
    elif origin is tuple and isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _unknown_fields(value, arguments[0], f"{path}{index}.")
