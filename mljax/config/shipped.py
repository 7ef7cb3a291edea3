"""The configs that ship with mljax."""

import ast
import inspect
import runpy
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mljax.config.signatures import suggest

_PACKAGE = Path(__file__).parents[1]
# In an installed wheel the configs lie inside the package, in a clone beside it.
FOLDER = next(
    (p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir()),
    _PACKAGE / "configs",
)


@dataclass(frozen=True)
class ConfigFile:
    """A config that ships: its name, the arguments of its `get_config`, and its first line."""

    name: str
    arguments: dict[str, str]
    summary: str


def list_configs() -> list[ConfigFile]:
    """Returns the configs that ship with mljax, by name."""
    return [
        ConfigFile(
            name=path.relative_to(FOLDER).with_suffix("").as_posix(),
            arguments=_arguments(runpy.run_path(str(path))["get_config"]),
            summary=(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0],
        )
        for path in sorted(FOLDER.rglob("*.py"))
    ]


def _arguments(get_config: Callable[..., Any]) -> dict[str, str]:
    """Returns {argument: its values, the default first}."""
    shown = {}
    for p in inspect.signature(get_config).parameters.values():
        known = typing.get_args(p.annotation) if typing.get_origin(p.annotation) is Literal else ()
        values = [p.default, *(x for x in known if x != p.default)]
        shown[p.name] = "|".join(map(str, values))
    return shown


def find_shipped(path: Path) -> Path:
    """Returns the file of a config that ships.

    Raises:
      FileNotFoundError: for an unknown name, with close matches.
    """
    name = path.with_suffix("").as_posix().removeprefix("configs/")
    file = FOLDER / f"{name}.py"
    if not file.is_file():
        known = [p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.py")]
        raise FileNotFoundError(
            f"no config at {path}, and none that ships has this name{suggest(name, known)}; "
            "--list-configs lists them"
        )
    return file


def print_configs(console: Console) -> None:
    """Prints the configs that ship: name, what it is, and its arguments, the defaults first."""
    for each in list_configs():
        console.print(Text(each.name, style="bold"))
        arguments = ", ".join(f"{name}={values}" for name, values in each.arguments.items())
        for text in filter(None, (each.summary, arguments)):
            console.print(Padding(Text(text), (0, 0, 0, 4)))
