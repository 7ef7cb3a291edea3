"""Who may import whom: later parts import earlier ones, never the reverse."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A folder may import from the ones before it and from itself; a file directly in mljax/ is a
# command and may import everything but other commands.
ORDER = [
    {"config", "devices", "terminal", "layers", "losses", "metrics"},
    {"data", "backbones", "heads"},
    {"models"},
    {"checkpoints"},
    {"training", "evaluation"},
    {"evaluators"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
COMMANDS = {"train", "evaluate", "predict"}
FILES = sorted([*ROOT.glob("mljax/**/*.py"), *ROOT.glob("converters/**/*.py")])


def imports(path):
    """Returns the modules of this project that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("mljax", "converters", "tests")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    for name in imports(path):
        target, *inner = name.split(".")
        if package == "converters":
            assert target in ("mljax", "converters")
            continue
        assert target == "mljax", f"mljax must not import {name}"
        if rest == ["__init__"] or not inner:
            continue
        if rest[0] in COMMANDS:
            continue
        lower = inner[0] == "config" and rest[0] != "config"
        later = lower or RANK[inner[0]] < RANK[rest[0]]
        assert rest[0] == inner[0] or later, f"imports {name}"
        if rest[0] == "losses":
            assert inner[0] == "losses", "losses import nothing of mljax but other losses"


def test_every_module_has_its_place():
    names = {p.stem for p in ROOT.glob("mljax/*") if not p.name.startswith("_")}
    assert names == set(RANK) | COMMANDS


def test_importing_the_package_needs_neither_torch_nor_tensorflow():
    code = (
        "import sys, mljax, mljax.evaluate, mljax.predict, converters; "
        "print([m for m in ('torch', 'tensorflow', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
