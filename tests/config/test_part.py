"""Parts: callables by name, found again without importing what a file names."""

import functools
import importlib.metadata
import math
import re
import sys

import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mljax.data.pipeline  # noqa: F401
import mljax.training.gradients
import mljax.training.optimizer
import mljax.training.schedules
import mljax.training.stopping  # noqa: F401
from mljax.config.load import from_json, load_config, to_json
from mljax.config.part import Part, part, resolve, resolved, use_plugins
from mljax.data.augment.cutout import cutout
from mljax.data.readers.digits import digits
from mljax.losses import LOSSES, asymmetric_loss

# The function `part` of the package hides its module.
part_module = sys.modules["mljax.config.part"]
TABLES = part_module._TABLES


@pytest.fixture
def make_module(tmp_path, monkeypatch):
    """Returns a function that writes a module of the user's; at the end it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(part_module, "_PLUGINS", set())
    made = []

    def make(name, text):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        made.append(name.partition(".")[0])

    yield make
    for name in [m for m in sys.modules if m.partition(".")[0] in made]:
        del sys.modules[name]


OWN = "class Own:\n    @staticmethod\n    def loss(logits, *, scale=1.0):\n        return scale\n"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (cutout, "cutout"),
        (digits, "digits"),
        (asymmetric_loss, "asymmetric_loss"),
        (math.hypot, "math:hypot"),
        (optax.adamw, "optax:adamw"),
        (optax.contrib.muon, "optax.contrib._muon:muon"),
        ("anything", "anything"),
    ],
)
def test_a_callable_has_the_shortest_name_that_finds_it(monkeypatch, target, name):
    monkeypatch.setattr(part_module, "_PLUGINS", set())
    assert part(target).name == name


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("cutout", "augmentation", cutout),
        ("digits", "reader", digits),
        ("optax:adamw", "algorithm", optax.adamw),
    ],
)
def test_a_name_gives_the_callable_again(name, kind, found):
    assert resolve(name, kind) is found


def test_an_unknown_name_gives_close_ones_or_all():
    with pytest.raises(ValueError, match="unknown augmentation 'cutuot'; did you mean cutout"):
        resolve("cutuot", "augmentation")
    with pytest.raises(ValueError, match="unknown tracker 'x'; known: class_prior"):
        resolve("x", "tracker")


def test_a_short_name_is_found_in_its_own_table_alone():
    with pytest.raises(ValueError, match="unknown reader 'cutout'"):
        resolve("cutout", "reader")


def test_every_short_name_stands_in_one_table_only():
    names = [name for table in TABLES.values() for name in table]
    assert len(set(names)) == len(names)
    callables = [callable_ for table in TABLES.values() for callable_ in table.values()]
    assert len(set(map(id, callables))) == len(callables)


def test_every_short_name_is_the_name_of_its_callable():
    for kind, table in TABLES.items():
        for name, target in table.items():
            assert part(target).name == name
            assert resolve(name, kind) is target


def test_a_part_of_a_module_of_the_users_is_found_again(make_module):
    make_module("own_parts.losses", OWN)
    from own_parts.losses import Own

    chosen = part(Own.loss, scale=2.0)
    assert chosen.name == "own_parts.losses:Own.loss"
    assert resolve(chosen.name, "loss") is Own.loss
    assert resolved(chosen, "loss")(None) == 2.0


def test_a_module_that_the_user_imported_may_be_named(make_module):
    make_module("own_imported", OWN)
    import own_imported

    assert resolve("own_imported:Own.loss", "loss") is own_imported.Own.loss


def test_a_module_that_is_not_imported_is_refused_and_not_imported(make_module):
    make_module("own_unknown", "raise RuntimeError('imported')\n")
    with pytest.raises(ValueError, match="--plugin own_unknown") as error:
        resolve("own_unknown:loss", "loss")
    assert "loss 'own_unknown:loss'" in str(error.value)
    assert "own_unknown" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "posix:system",
        "subprocess:run",
        "builtins:exec",
        "builtins:eval",
        "shutil:rmtree",
        "numpy:save",
        "jax.numpy:save",
        "optax:jax.numpy.save",
        "optax:sgd.__globals__.get",
        "optax:sgd.__globals__",
        "optax:sgd.__class__",
        "mljax.train:shutil.rmtree",
        "mljax.train:fit",
        "mljax.checkpoints.manifest:seal",
        "mljax.data.pipeline:np.save",
        "tests.photos:np.save",
        "tests.runs:subprocess.run",
        "tests.runs:os.system",
        "tests.runs:start.__globals__.get",
        "tests.runs:absent",
        "__main__:main",
        ":exec",
        "os:",
    ],
)
def test_what_is_no_part_is_refused_though_its_module_is_imported(monkeypatch, name):
    monkeypatch.setattr(part_module, "_PLUGINS", set())
    import tests.photos
    import tests.runs  # noqa: F401

    with pytest.raises(ValueError, match=re.escape(repr(name))):
        resolve(name, "loss")


def test_plugins_are_imported_and_trusted(make_module):
    make_module("own_plugin", OWN)
    with pytest.raises(ValueError, match="--plugin own_plugin"):
        resolve("own_plugin:Own.loss", "loss")
    use_plugins(["own_plugin"])
    assert resolve("own_plugin:Own.loss", "loss").__name__ == "loss"


def test_an_installed_module_is_trusted_once_the_user_names_it(monkeypatch, make_module):
    make_module("own_installed", OWN)
    import own_installed

    monkeypatch.setattr(part_module, "_installed_modules", lambda: frozenset({"own_installed"}))
    with pytest.raises(ValueError, match="--plugin own_installed"):
        resolve("own_installed:Own.loss", "loss")
    use_plugins(["own_installed"])
    assert resolve("own_installed:Own.loss", "loss") is own_installed.Own.loss


def test_a_plugin_may_fill_a_table_with_short_names(make_module):
    make_module(
        "own_table",
        "from mljax.losses import LOSSES\ndef own(logits):\n    pass\nLOSSES['own'] = own\n",
    )
    use_plugins(["own_table"])
    try:
        assert part(sys.modules["own_table"].own).name == "own"
        assert resolve("own", "loss") is sys.modules["own_table"].own
    finally:
        del LOSSES["own"]


def test_a_plugin_that_cannot_be_imported_is_named(make_module):
    make_module("own_broken", "import absent_module\n")
    for name, reason in (("own_absent", "own_absent"), ("own_broken", "absent_module")):
        with pytest.raises(ValueError, match=f"plug-in {name}: .*{reason}"):
            use_plugins([name])


def test_plugins_of_the_entry_point_group_are_used(monkeypatch, make_module):
    make_module("own_entry", OWN)
    point = importlib.metadata.EntryPoint("own", "own_entry", "mljax.plugins")
    groups = {"mljax.plugins": (point,)}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: groups[group])
    use_plugins()
    assert resolve("own_entry:Own.loss", "loss") is sys.modules["own_entry"].Own.loss


def test_resolved_holds_the_arguments_and_checks_them():
    found = resolved(part(digits, num_images=3), "reader")
    assert (found.func, found.keywords) == (digits, {"num_images": 3})
    with pytest.raises(ValueError, match="reader digits takes no argument 'images'"):
        resolved(part(digits, images=3), "reader")


class _Callable:
    def __call__(self):
        pass


def _local():
    def inner():
        pass

    return inner


@pytest.mark.parametrize(
    "target",
    [
        lambda: None,
        _local(),
        functools.partial(cutout, factor=0.5),
        _Callable(),
        [].append,
        {}.get,
    ],
    ids=["lambda", "local", "partial", "object", "method", "get"],
)
def test_a_callable_without_a_name_says_where_to_define_it(target):
    with pytest.raises(ValueError, match="top level of a module of your own"):
        part(target)


@pytest.mark.parametrize("where", ["module", "get_config"])
def test_a_function_of_a_config_file_says_where_to_define_it(tmp_path, where):
    path = tmp_path / "config.py"
    indent = "    " if where == "get_config" else ""
    body = f"def own(logits):\n    pass\ndef get_config():\n    pass\n{indent}part(own)\n"
    path.write_text(f"from mljax import part\n{body}")
    with pytest.raises(ValueError, match="top level of a module of your own") as error:
        load_config(path)
    assert f"{path}, line 6" in str(error.value)


def test_parts_may_hold_parts_and_come_back_from_json():
    inner = part(digits, num_images=3)
    outer = part("partial", reader=inner, others=[inner, {"deep": inner}], amount=0.5)
    found = from_json(Part, to_json(outer))
    assert found == outer
    assert found.kwargs["others"] == (inner, {"deep": inner})
    assert hash(found) == hash(outer)


_ARGUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), _ARGUMENTS))
def test_json_gives_back_the_arguments_of_a_part(kwargs):
    assert from_json(Part, to_json(part("x", a=kwargs))) == part("x", a=kwargs)


@pytest.mark.parametrize(
    "value", [np.float32(1), np.zeros(2), {1: 2}, 1j, [object()], {"deep": [b"bytes"]}]
)
def test_an_argument_that_json_does_not_hold_is_named(value):
    with pytest.raises(
        ValueError, match="argument 'odd' of digits: expected a finite number, text"
    ):
        part(digits, odd=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_hold_is_named(value):
    with pytest.raises(ValueError, match=f"argument 'odd' of digits: .* got .*{value}"):
        part(digits, odd=[value])


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
def test_a_whole_number_too_long_for_json_is_named(value):
    with pytest.raises(ValueError, match=f"argument 'odd' of digits: .* got .*{value}"):
        part(digits, odd=value)


def test_a_function_of_a_script_is_refused(monkeypatch):
    def loss(logits):
        return logits

    loss.__module__, loss.__qualname__ = "__main__", "loss"
    monkeypatch.setattr(sys.modules["__main__"], "loss", loss, raising=False)
    with pytest.raises(ValueError, match="cannot be found again by its name __main__:loss"):
        part(loss)
