"""Recipes: loading, overriding, JSON, and the checks of names and arguments."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mljax.config.schema import (
    Config,
    Part,
    Preprocessing,
    from_json,
    load_config,
    override,
    part,
    to_json,
)
from tests import miniature


def _recipe_file(folder, text):
    path = folder / "recipe.py"
    path.write_text(text)
    return path


def test_recipe_file_gives_its_config(tmp_path):
    path = _recipe_file(tmp_path, "from tests import miniature\nget_config = miniature.recipe\n")
    assert load_config(path) == miniature.recipe()


def test_a_saved_recipe_is_a_recipe(tmp_path):
    (tmp_path / "recipe.json").write_text(to_json(miniature.recipe()))
    assert load_config(tmp_path / "recipe.json") == miniature.recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nget_config = (\n", "recipe.py, line 2: SyntaxError: "),
        ("def get_config():\n    return absent\n", "line 2: NameError: name 'absent'"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(_recipe_file(tmp_path, text))


def test_missing_recipe_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recipe at .*absent.py; .* configs/"):
        load_config(tmp_path / "absent.py")


def test_recipe_file_without_get_config_raises(tmp_path):
    with pytest.raises(ValueError, match=r"recipe.py defines no get_config\(\)"):
        load_config(_recipe_file(tmp_path, "config = 1\n"))


def test_recipe_of_another_type_raises(tmp_path):
    with pytest.raises(ValueError, match=r"must return a mljax Config, got <class 'dict'>"):
        load_config(_recipe_file(tmp_path, "def get_config():\n    return {}\n"))


def test_wrong_type_in_a_recipe_file_is_named_by_its_path(tmp_path):
    text = (
        "from tests import miniature\n"
        "def get_config():\n"
        "    config = miniature.recipe()\n"
        # Past the checks of types that these tests add to constructors.
        "    object.__setattr__(config, 'seed', 'one')\n"
        "    return config\n"
    )
    with pytest.raises(ValueError, match=r"recipe.py.seed: expected int, got 'one'"):
        load_config(_recipe_file(tmp_path, text))


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("optimizer.peak_lr=3e-4", lambda c: c.optimizer.peak_lr, 3e-4),
        ("optimizer.peak_lr=1", lambda c: c.optimizer.peak_lr, 1.0),
        ("seed=7", lambda c: c.seed, 7),
        ("train.fsdp=True", lambda c: c.train.fsdp, True),
        ("train.checkpoint_every_steps=5", lambda c: c.train.checkpoint_every_steps, 5),
        ("train.checkpoint_every_steps=None", lambda c: c.train.checkpoint_every_steps, None),
        ("model.init_from=runs/first", lambda c: c.model.init_from, "runs/first"),
        ("model.dtype=bfloat16", lambda c: c.model.dtype, "bfloat16"),
        ("losses.0.weight=2", lambda c: c.losses[0].weight, 2.0),
        ("losses.0.kwargs.clip=0.1", lambda c: c.losses[0].kwargs["clip"], 0.1),
        (
            "model.backbone.kwargs.layers=[2,1,1,1]",
            lambda c: c.model.backbone.kwargs["layers"][0],
            2,
        ),
        (
            "data.preprocessing.mean=[0.5,0.5,1]",
            lambda c: c.data.preprocessing.mean,
            (0.5, 0.5, 1.0),
        ),
        ("data.augment=[{'name': 'cutout'}]", lambda c: c.data.augment, (part("cutout"),)),
        ("data.reader.kwargs.root=a=b", lambda c: c.data.reader.kwargs["root"], "a=b"),
    ],
)
def test_override_sets_the_field_at_a_dotted_path(assignment, read, value):
    found = read(override(miniature.recipe(), [assignment]))
    assert found == value
    assert type(found) is type(value)


def test_overrides_apply_in_order_and_leave_the_rest():
    config = override(miniature.recipe(), ["seed=1", "train.epochs=2", "seed=3"])
    train = dataclasses.replace(miniature.recipe().train, epochs=2.0)
    assert config == dataclasses.replace(miniature.recipe(), seed=3, train=train)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seed", "expected path=value, got 'seed'"),
        (
            "optimizer.peak_rl=1",
            "optimizer.peak_rl: unknown field 'peak_rl'; did you mean peak_lr?",
        ),
        ("optimiser.peak_lr=1", "unknown field 'optimiser'; did you mean optimizer?"),
        ("eval.nothing=1", "unknown field 'nothing'; known: every_epochs, threshold"),
        ("losses.1.weight=1", "losses.1.weight: no entry '1'; there are 1, counted from 0"),
        ("losses.first.weight=1", "no entry 'first'"),
        ("losses.0.kwargs.a.b=1", "unknown field 'a'; known: none"),
        ("seed.x=1", "seed.x: nothing to set under 0"),
        ("seed=1.5", "seed: expected int, got 1.5"),
        ("seed=True", "seed: expected int, got True"),
        ("train.epochs=many", "train.epochs: expected float, got 'many'"),
        ("train.fsdp=1", "train.fsdp: expected bool, got 1"),
        ("model.dtype=float16", "expected one of float32, bfloat16, got 'float16'"),
        ("data.preprocessing.mean=(0,0)", "mean: expected 3 entries, got 2"),
        ("data.augment=cutout", "data.augment: expected tuple, got 'cutout'"),
        ("optimizer=1", "optimizer: expected OptimizerConfig, got 1"),
        ("data.reader={}", "data.reader: .*missing .*'name'"),
        ("data.train_split=2017", "data.train_split: expected str, got 2017"),
    ],
)
def test_override_refuses_what_does_not_fit(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(miniature.recipe(), [assignment])


def test_json_round_trip_is_exact():
    config = miniature.training_recipe("optimizer.peak_lr=0.1", "model.init_from=a/b")
    text = to_json(config)
    assert from_json(Config, text) == config
    assert to_json(from_json(Config, text)) == text


_ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), _ARGUMENTS))
def test_json_gives_back_the_arguments_of_a_part(kwargs):
    assert from_json(Part, to_json(part("x", **{"a": kwargs}))) == part("x", **{"a": kwargs})


@settings(deadline=None)
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_json_gives_back_every_bit_of_a_float(first, second):
    preprocessing = Preprocessing(image_size=1, mean=(first, second, 0.0))
    found = from_json(Preprocessing, to_json(preprocessing))
    assert np.array(found.mean).tobytes() == np.array(preprocessing.mean).tobytes()


def test_lists_in_a_recipe_become_tuples():
    config = override(miniature.recipe(), ["model.backbone.kwargs.layers=[1, [2], {'a': [3]}]"])
    assert config.model.backbone.kwargs["layers"] == (1, (2,), {"a": (3,)})


@pytest.mark.parametrize("text", ["np.float32(1)", "np.zeros(2)", "{1: 2}", "Path('x')", "[1j]"])
def test_an_argument_that_json_cannot_hold_raises(tmp_path, text):
    recipe = (
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from tests import miniature\n"
        f"reader = miniature.part('digits', odd={text})\n"
        "def get_config():\n    return miniature.recipe(reader=reader)\n"
    )
    with pytest.raises(ValueError, match="reader.kwargs.odd.*: expected a number, text, None"):
        load_config(_recipe_file(tmp_path, recipe))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_sise": 1}, "stored: unknown field 'image_sise'; did you mean image_size?"),
        ({"image_size": "1"}, "stored.image_size: expected int, got '1'"),
        ({"resize": "cubic"}, "stored.resize: expected one of bilinear, bicubic, got 'cubic'"),
        ({"mean": [0, 0, "x"]}, "stored.mean.2: expected float, got 'x'"),
    ],
)
def test_json_that_does_not_fit_raises(change, message):
    values = json.loads(to_json(Preprocessing(image_size=32))) | change
    with pytest.raises(ValueError, match=message):
        from_json(Preprocessing, json.dumps(values), "stored")


def test_json_with_a_missing_field_raises():
    with pytest.raises(ValueError, match="stored: .*'image_size'"):
        from_json(Preprocessing, "{}", "stored")


def test_text_that_is_not_json_raises():
    with pytest.raises(ValueError, match="stored is not JSON: "):
        from_json(Preprocessing, "{", "stored")
