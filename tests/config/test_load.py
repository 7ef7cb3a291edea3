"""Configs from files and JSON, with names and arguments, and overrides by dotted paths."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mljax.config import (
    Config,
    Preprocessing,
    from_json,
    load_config,
    override,
    part,
    to_json,
)
from mljax.config.load import changed_fields, parse_arguments, write_config
from tests import small_configs

SMALL = "from tests import small_configs\nget_config = small_configs.config\n"
WITH_ARGUMENTS = """
import dataclasses
from typing import Literal
from mljax.config import override
from tests import small_configs

def get_config(size: Literal["s", "l"] = "s", epochs: float = 1.0, layers: tuple[int, ...] = (1,)):
    changes = [f"model.init_from={size}", f"train.epochs={epochs}"]
    return override(small_configs.config(), [*changes, f"model.backbone.kwargs.layers={layers}"])
"""


def _file(folder, text):
    path = folder / "config.py"
    path.write_text(text)
    return path


def test_a_config_file_gives_its_config(tmp_path):
    assert load_config(_file(tmp_path, SMALL)) == small_configs.config()
    assert load_config(str(_file(tmp_path, SMALL))) == small_configs.config()


def test_a_saved_config_is_a_config(tmp_path):
    (tmp_path / "config.json").write_text(to_json(small_configs.config()))
    assert load_config(tmp_path / "config.json") == small_configs.config()


def test_arguments_of_get_config_follow_a_colon(tmp_path):
    path = _file(tmp_path, WITH_ARGUMENTS)
    assert load_config(path).model.init_from == "s"
    config = load_config(f"{path}:size=l,epochs=2,layers=(2,1)")
    assert (config.model.init_from, config.train.epochs) == ("l", 2.0)
    assert config.model.backbone.kwargs["layers"] == (2, 1)


def test_a_file_may_have_a_colon_in_its_name(tmp_path):
    path = tmp_path / "a:b.py"
    path.write_text(SMALL)
    assert load_config(path) == small_configs.config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sise=l", "config.py takes no argument 'sise'; did you mean size"),
        ("size=m", "config.py: argument 'size' must be .*'s', 'l'.* got 'm'"),
        ("epochs=many", "config.py: argument 'epochs' must be a number, got 'many'"),
        ("l", "expected name=value after the colon, got 'l'"),
        ("", "expected name=value after the colon, got ''"),
    ],
)
def test_arguments_that_do_not_fit_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_config(f"{_file(tmp_path, WITH_ARGUMENTS)}:{arguments}")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("size=l", {"size": "l"}),
        ("size=l,epochs=2", {"size": "l", "epochs": 2}),
        ("layers=(1,2),names=['a','b']", {"layers": (1, 2), "names": ["a", "b"]}),
        ("url=a=b,flag=True,none=None", {"url": "a=b", "flag": True, "none": None}),
        ("number='\"1\"'", {"number": '"1"'}),
    ],
)
def test_values_of_arguments_are_literals_or_text(text, arguments):
    assert parse_arguments(text, "--config x") == arguments


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "absent.py")) as error:
        load_config(tmp_path / "absent.py")
    assert "--list-configs" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nget_config = (\n", "config.py, line 2: SyntaxError: "),
        ("def get_config():\n    return absent\n", "line 2: NameError: name 'absent'"),
        (
            "from mljax.config import TrainConfig\n\nTrainConfig(epochs=0.0)\n",
            "line 3: ValueError: epochs must be .* got 0.0",
        ),
    ],
)
def test_a_config_that_cannot_be_run_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_config(_file(tmp_path, text))


def test_a_config_file_without_get_config_raises(tmp_path):
    with pytest.raises(ValueError, match=r"config.py defines no get_config\(\)"):
        load_config(_file(tmp_path, "config = 1\n"))


def test_a_config_of_another_type_raises(tmp_path):
    with pytest.raises(ValueError, match=r"must return a mljax Config, got <class 'dict'>"):
        load_config(_file(tmp_path, "def get_config():\n    return {}\n"))


def test_a_wrong_type_in_a_config_file_is_named_by_its_path(tmp_path):
    text = (
        "from tests import small_configs\n"
        "def get_config():\n"
        "    config = small_configs.config()\n"
        # Past the checks of types that these tests add to constructors.
        "    object.__setattr__(config, 'seed', 'one')\n"
        "    return config\n"
    )
    with pytest.raises(ValueError, match=r"config.py: seed: .*`int`, got `str`"):
        load_config(_file(tmp_path, text))


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
        (
            "train.stop={'name': 'no_improvement', 'kwargs': {}}",
            lambda c: c.train.stop,
            part("no_improvement"),
        ),
        ("schedule.name=constant", lambda c: c.schedule.name, "constant"),
        ("model.init_from='7'", lambda c: c.model.init_from, "7"),
    ],
)
def test_override_sets_the_field_at_a_dotted_path(assignment, read, value):
    found = read(override(small_configs.config(), [assignment]))
    assert found == value
    assert type(found) is type(value)


def test_override_reaches_the_arguments_of_a_nested_part():
    reader = part("partial", reader=part("digits", num_images=20), method="x", amount=1)
    config = small_configs.config(reader=reader)
    found = override(config, ["data.reader.kwargs.reader.kwargs.num_images=5"]).data.reader
    assert found.kwargs["reader"] == part("digits", num_images=5)
    with pytest.raises(ValueError, match="unknown field 'nmae'; did you mean name"):
        override(config, ["data.reader.kwargs.reader.nmae=coco"])


def test_overrides_apply_in_order_and_leave_the_rest():
    config = override(small_configs.config(), ["seed=1", "train.epochs=2", "seed=3"])
    train = dataclasses.replace(small_configs.config().train, epochs=2.0)
    assert config == dataclasses.replace(small_configs.config(), seed=3, train=train)


@pytest.mark.parametrize(
    ("assignment", "facts"),
    [
        ("seed", ["path=value", "'seed'"]),
        ("optimizer.peak_rl=1", ["optimizer.peak_rl", "'peak_rl'; did you mean peak_lr?"]),
        ("optimiser.peak_lr=1", ["unknown field 'optimiser'; did you mean optimizer?"]),
        ("eval.nothing=1", ["unknown field 'nothing'; known: best_by, evaluators"]),
        ("losses.1.weight=1", ["losses.1.weight: no entry '1'", "there are 1"]),
        ("losses.first.weight=1", ["no entry 'first'"]),
        ("losses.0.kwargs.a.b=1", ["unknown field 'a'; known: none"]),
        ("seed.x=1", ["seed.x: nothing to set under 0"]),
        ("seed=1.5", ["seed", "`int`", "float"]),
        ("seed=True", ["seed", "`int`", "`bool`"]),
        ("seed=-1", ["seed", "at least 0", "got -1"]),
        ("train.epochs=many", ["train.epochs", "`float`", "`str`"]),
        ("train.epochs=0", ["train", "epochs must be positive", "got 0"]),
        ("train.fsdp=1", ["train.fsdp", "`bool`", "`int`"]),
        ("model.dtype=float16", ["model.dtype", "'float16'"]),
        ("data.preprocessing.mean=(0,0)", ["data.preprocessing.mean", "3"]),
        ("data.augment=cutout", ["data.augment", "`array`", "`str`"]),
        ("optimizer=1", ["optimizer", "`object`", "`int`"]),
        ("data.reader={}", ["data.reader", "missing", "`name`"]),
        ("data.train_split=2017", ["data.train_split", "`str`", "`int`"]),
        ("data.augment=[{'name': 'cutout', 'kwarg': {}}]", ["data.augment.0.", "'kwarg'; did"]),
        ("train.stop={'nam': 'x'}", ["train.stop.", "'nam'; did you mean name"]),
    ],
)
def test_override_refuses_what_does_not_fit(assignment, facts):
    with pytest.raises(ValueError, match=".") as error:
        override(small_configs.config(), [assignment])
    assert [fact for fact in facts if fact not in str(error.value)] == []


def test_json_round_trip_is_exact():
    config = small_configs.training_config("optimizer.peak_lr=0.1", "model.init_from=a/b")
    text = to_json(config)
    assert from_json(Config, text) == config
    assert to_json(from_json(Config, text)) == text


@settings(deadline=None)
@given(*[st.floats(allow_nan=False, allow_infinity=False)] * 2)
def test_json_gives_back_every_bit_of_a_float(first, second):
    preprocessing = Preprocessing(image_size=1, mean=(first, second, 0.0))
    found = from_json(Preprocessing, to_json(preprocessing))
    assert np.array(found.mean).tobytes() == np.array(preprocessing.mean).tobytes()


def test_lists_in_a_config_become_tuples():
    config = override(small_configs.config(), ["model.backbone.kwargs.layers=[1, [2], {'a': [3]}]"])
    assert config.model.backbone.kwargs["layers"] == (1, (2,), {"a": (3,)})


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"image_sise": 1}, ["unknown field 'image_sise'; did you mean image_size?"]),
        ({"image_size": "1"}, ["image_size", "int", "`str`"]),
        ({"image_size": 0}, ["image_size must be positive", "got 0"]),
        ({"resize": "cubic"}, ["resize", "'cubic'"]),
        ({"mean": [0, 0, "x"]}, ["mean[2]", "`float`", "`str`"]),
    ],
)
def test_json_that_does_not_fit_raises(change, facts):
    values = json.loads(to_json(Preprocessing(image_size=32))) | change
    with pytest.raises(ValueError, match="^stored: ") as error:
        from_json(Preprocessing, json.dumps(values), "stored")
    assert [fact for fact in facts if fact not in str(error.value)] == []


def test_json_with_a_missing_field_raises():
    with pytest.raises(ValueError, match="stored: .*`image_size`"):
        from_json(Preprocessing, "{}", "stored")


@pytest.mark.parametrize("text", ["{", "", '{"image_size": NaN}'])
def test_text_that_is_not_json_raises(text):
    with pytest.raises(ValueError, match="stored is not JSON: "):
        from_json(Preprocessing, text, "stored")


def test_a_changed_config_is_named_by_its_fields_when_a_run_goes_on(tmp_path):
    file, config = tmp_path / "config.json", small_configs.config()
    assert write_config(file, config, resumed=False) == ""
    assert write_config(file, config, resumed=True) == ""
    changed = override(config, ["seed=3", "losses.0.kwargs.clip=0.1", "eval.threshold=0.5"])
    expected = "eval.threshold, losses.0.kwargs.clip, seed"
    line = write_config(file, changed, resumed=True)
    assert str(tmp_path) in line
    assert line.endswith(f": {expected}")
    assert load_config(file) == changed
    assert changed_fields(to_json(config), to_json(config)) == []


@pytest.mark.parametrize("left", [b"", b'{"data": {"rea', b"\xff\xfe{}"])
def test_a_stored_config_that_was_cut_is_named_and_written_anew(tmp_path, left):
    file = tmp_path / "config.json"
    file.write_bytes(left)
    line = write_config(file, small_configs.config(), resumed=True)
    assert f"{file} was empty or cut" in line
    assert load_config(file) == small_configs.config()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
