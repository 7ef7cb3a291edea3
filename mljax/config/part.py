"""Pluggable parts: callables in Python, names with arguments in JSON.

`part(asymmetric_loss, gamma_neg=4.0)` stores a name: the short one under which a table of mljax
holds the callable, `optax:sgd` for optax's, else `module:qualname`. A name becomes a callable again
by `resolve`, which imports nothing: what a file names is used only if it stands in a table, or in a
module that the user named or imported. So a checkpoint of a stranger decides nothing.
"""

import functools
import importlib
import importlib.metadata
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import optax

from mljax.config.signatures import bind, suggest

# {kind: {short name: callable}}, filled by `table` as each package of parts is imported.
_TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {}
# Modules whose parts may be used by name, because the user named them.
_PLUGINS: set[str] = set()
PLUGIN_GROUP = "mljax.plugins"


@dataclass(frozen=True, kw_only=True)
class Part:
    """The name of a callable and its keyword arguments, which may hold parts.

    Lists become tuples, and `{"name": ..., "kwargs": ...}` becomes a part, so that arguments come
    back from JSON as they were.

    Raises:
      ValueError: for an argument that JSON does not hold.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.kwargs, dict):
            raise ValueError(f"expected a name and a dict of arguments, got {self.name!r}")
        object.__setattr__(self, "kwargs", plain_arguments(self.kwargs, self.name))

    def __hash__(self) -> int:
        # The arguments may be dicts, which have no hash; equal parts still have equal hashes.
        return hash(self.name)


def plain_arguments(kwargs: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Returns arguments as JSON gives them back.

    Args:
      kwargs: the arguments.
      owner: what they belong to, for the message.

    Raises:
      ValueError: for one that JSON does not hold.
    """
    return {key: _plain(value, f"argument {key!r} of {owner}") for key, value in kwargs.items()}


def _plain(value: Any, where: str) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, Part) or type(value) in (bool, str):
        return value
    # JSON has neither nan nor inf, and its readers no longer numbers.
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v, where) for v in value)
    if isinstance(value, dict) and value.keys() == {"name", "kwargs"}:
        return Part(**value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(v, where) for key, v in value.items()}
    raise ValueError(
        f"{where}: expected a finite number, text, None, a part, or lists and dicts of them, got "
        f"{value!r}"
    )


def part(target: Callable[..., Any] | str, /, **kwargs: Any) -> Part:  # noqa: ANN401
    """Returns a part, written as the call that it stands for: `part(cutout, factor=0.5)`.

    Args:
      target: a callable that can be imported by its name, or the name of one.
      kwargs: its arguments.

    Raises:
      ValueError: for a callable without an importable name, or an argument that JSON does not hold.
    """
    return Part(name=target if isinstance(target, str) else _name_of(target), kwargs=kwargs)


def table(kind: str, callables: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Returns a table of short names, known from now on to `part` and `resolve`.

    Args:
      kind: what its parts are, in a word or two.
      callables: short name to callable.
    """
    _TABLES[kind] = callables
    return callables


def use_plugins(modules: Iterable[str] = ()) -> None:
    """Imports modules that the user named, and those of the entry point group `mljax.plugins`.

    Their parts can then be used by name.

    Raises:
      ValueError: for a module that cannot be imported.
    """
    installed = importlib.metadata.entry_points(group=PLUGIN_GROUP)
    for name in [*modules, *(entry.module for entry in installed)]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"plug-in {name}: cannot be imported ({error}); is it installed, or in the folder "
                "that Python was started in?"
            ) from error
        _PLUGINS.add(name.partition(".")[0])


def resolve(name: str, kind: str) -> Callable[..., Any]:
    """Returns the callable that a name stands for.

    Args:
      name: of a part.
      kind: the table to look it up in.

    Raises:
      ValueError: for an unknown name, with close matches, or one in a module that the user has to
        name first.
    """
    module, _, qualname = name.partition(":")
    if not qualname:
        if name not in _TABLES[kind]:
            raise ValueError(f"unknown {kind} {name!r}{suggest(name, list(_TABLES[kind]))}")
        return _TABLES[kind][name]
    if module == "optax":
        return _attribute(optax, qualname, name)
    if module not in sys.modules or not _is_trusted(module):
        raise ValueError(
            f"{kind} {name!r} is in a plug-in that is not loaded: pass --plugin {module}, in "
            f'Python plugins=("{module}",), if you trust it'
        )
    return _attribute(sys.modules[module], qualname, name)


def resolved(chosen: Part, kind: str) -> functools.partial[Any]:
    """Returns a part's callable with the part's arguments.

    An argument that is itself a part is passed as it is: the callable knows what to make of it.

    Raises:
      ValueError: for an unknown name, or arguments that do not fit the callable's signature.
    """
    function = resolve(chosen.name, kind)
    bind(function, chosen.kwargs, f"{kind} {chosen.name}")
    return functools.partial(function, **chosen.kwargs)


def _name_of(target: Callable[..., Any]) -> str:
    for names in _TABLES.values():
        for name, known in names.items():
            if known is target:
                return name
    # Methods of built-in objects have None for a module.
    module, qualname = _module_of(target), getattr(target, "__qualname__", "")
    if module.startswith("optax.") and getattr(optax, qualname, None) is target:
        return f"optax:{qualname}"
    # A script or a config file that is being run has a name that no other process can import.
    nameless = module == "__main__" or module.startswith("<")
    found = None if nameless else sys.modules.get(module)
    if not qualname or found is None or _nested(found, qualname) is not target:
        raise ValueError(
            f"part: {target!r} cannot be found again by its name {module}:{qualname}; define it at "
            "the top level of a module of your own, not in a config, script or notebook, and "
            "import it from there"
        )
    _PLUGINS.add(module.partition(".")[0])
    return f"{module}:{qualname}"


def _is_trusted(module: str) -> bool:
    """Returns whether the user named the module, or imported it as code of their own.

    What the standard library or an installed distribution defines is no part unless it is named.
    """
    top = module.partition(".")[0]
    if top in _PLUGINS:
        return True
    return top not in {*sys.stdlib_module_names, *_installed_modules(), "__main__", "mljax"}


@functools.cache
def _installed_modules() -> frozenset[str]:
    return frozenset(importlib.metadata.packages_distributions())


def _attribute(module: ModuleType, qualname: str, name: str) -> Callable[..., Any]:
    """Returns a callable that the module's own package defines, not one that it imports."""
    found = _nested(module, qualname)
    inner = found
    while isinstance(inner, functools.partial):
        inner = inner.func
    package = module.__name__.partition(".")[0]
    if not callable(found) or _module_of(inner).partition(".")[0] != package:
        raise ValueError(f"{name!r}: {module.__name__} defines no callable {qualname}")
    return found


def _module_of(target: Any) -> str:  # noqa: ANN401
    return getattr(target, "__module__", None) or ""


def _nested(found: Any, qualname: str) -> Any:  # noqa: ANN401
    for step in qualname.split("."):
        found = getattr(found, step, None)
    return found
