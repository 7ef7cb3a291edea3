"""Who may import whom: later folders import earlier ones; and what names may not be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A folder may import from itself and from the rows before its own; all may import config.
ORDER = [
    {"config"},
    {"devices", "terminal", "layers", "losses", "metrics"},
    {"data"},
    {"backbones", "heads"},
    {"trackers"},
    {"models"},
    {"checkpoints", "formats"},
    {"training", "evaluation"},
    {"evaluators"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FILES = sorted(ROOT.glob("mljax/**/*.py"))
CONVERTERS = sorted(ROOT.glob("converters/**/*.py"))
COMMANDS = [path for path in FILES if path.parent == ROOT / "mljax" and path.stem != "__init__"]
GENERIC = ("training", "evaluation", "config", "models", "checkpoints", "devices", "terminal")
SAY_NOTHING = {
    *("utils", "helpers", "common", "base", "misc", "binding"),
    *("check", "run", "report", "startup", "logs"),
}


def _name(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Returns the modules of this project that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = node.module in ("mljax", "converters")
            found |= {f"{node.module}.{a.name}" for a in node.names} if whole else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("mljax", "converters", "tests")}


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != ROOT / "mljax"], ids=_name)
def test_imports_go_one_way(path):
    folder = path.relative_to(ROOT / "mljax").parts[0]
    for name in imports(path):
        package, target, *_ = name.split(".")
        assert package == "mljax"
        assert target in RANK, f"{name}: no folder"
        assert target == folder or RANK[target] < RANK[folder], name


@pytest.mark.parametrize("path", COMMANDS, ids=_name)
def test_a_command_imports_no_other(path):
    for name in imports(path):
        assert name.split(".")[0] == "mljax"
        assert name.split(".")[1] in RANK, name


@pytest.mark.parametrize("path", COMMANDS, ids=_name)
def test_a_file_directly_in_the_package_is_a_command(path):
    functions = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}
    assert "main" in functions
    assert "mljax.terminal.command" in imports(path)


@pytest.mark.parametrize("path", CONVERTERS, ids=_name)
def test_converters_import_the_package_and_each_other(path):
    assert {name.split(".")[0] for name in imports(path)} <= {"mljax", "converters"}


@pytest.mark.parametrize("path", sorted((ROOT / "mljax/losses").glob("*.py")), ids=_name)
def test_losses_import_nothing_of_the_package_but_other_losses(path):
    others = {name for name in imports(path) if not name.startswith("mljax.losses.")}
    assert others == ({"mljax.config.part"} if path.stem == "__init__" else set())


def test_every_folder_has_its_place():
    folders = {p.parent.name for p in ROOT.glob("mljax/*/__init__.py")}
    assert folders == set(RANK)
    assert {p.name for p in ROOT.glob("mljax/*/") if p.name != "__pycache__"} == folders


@pytest.mark.parametrize(
    "path", [p for p in FILES if p in COMMANDS or p.parts[-2] in GENERIC], ids=_name
)
def test_a_generic_file_names_no_system(path):
    found = re.findall("kmcl|kernel|prior|word_vector", path.read_text(), re.IGNORECASE)
    assert found == []


def test_modules_are_named_by_what_they_hold():
    assert {_name(p) for p in [*FILES, *CONVERTERS] if p.stem in SAY_NOTHING} == set()
    assert {_name(p) for p in ROOT.glob("mljax/**/*/") if p.name in SAY_NOTHING} == set()


def test_the_commands_start_without_torch_and_tensorflow():
    commands = [f"mljax.{path.stem}" for path in ROOT.glob("mljax/*.py") if path.stem[0] != "_"]
    assert "mljax.train" in commands
    code = (
        f"import sys, {', '.join(commands)}, converters; "
        "print([m for m in ('torch', 'tensorflow', 'matplotlib', 'onnx') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
