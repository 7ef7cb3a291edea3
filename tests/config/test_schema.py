"""The dataclasses of a config: each refuses numbers out of range, by name."""

import dataclasses
import math

import pytest

from mljax.config import (
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ParameterGroup,
    Part,
    Preprocessing,
    TrainConfig,
    loss,
    part,
)
from mljax.losses import asymmetric_loss
from tests import small_configs
from tests.networks import PREPROCESSING

CONFIG = small_configs.config()
EXAMPLES = {
    Preprocessing: PREPROCESSING,
    DataConfig: CONFIG.data,
    LossConfig: CONFIG.losses[0],
    ParameterGroup: ParameterGroup(pattern="head.*"),
    OptimizerConfig: CONFIG.optimizer,
    TrainConfig: CONFIG.train,
    EvalConfig: CONFIG.eval,
    Config: CONFIG,
}
NOT_POSITIVE = (0, -1)
# {dataclass: {field: (values below or above its range, values at its ends)}}
RANGES = {
    Preprocessing: {
        "image_size": ((*NOT_POSITIVE, (0, 8), (8, -1)), (1, (1, 2))),
        "mean": (((0.0, math.nan, 0.0), (math.inf, 0.0, 0.0)), ((-1.0, 0.0, 2.0),)),
        "std": (((1.0, 0.0, 1.0), (1.0, 1.0, -1.0), (math.inf, 1.0, 1.0)), ((1e-3, 1.0, 9.0),)),
    },
    DataConfig: {
        "batch_size": (NOT_POSITIVE, (1,)),
        "eval_batch_size": (NOT_POSITIVE, (1,)),
        "num_workers": ((-1,), (0,)),
        "views": (NOT_POSITIVE, (1,)),
        "max_pixels": (NOT_POSITIVE, (1,)),
    },
    LossConfig: {"weight": ((), (-1.0, 0.0))},
    ParameterGroup: {"rate_factor": ((-0.1,), (0.0, 10.0)), "max_axes": ((-1,), (0, 1))},
    OptimizerConfig: {
        "peak_lr": (NOT_POSITIVE, (1e-9,)),
        "clip_norm": (NOT_POSITIVE, (None, 1e-9)),
    },
    TrainConfig: {
        "epochs": (NOT_POSITIVE, (0.5,)),
        "ema_decay": ((-0.1, 1.0, 1.5), (0.0, 0.9999)),
        "checkpoint_every_steps": (NOT_POSITIVE, (None, 1)),
        "keep_checkpoints": (NOT_POSITIVE, (1,)),
        "log_every_steps": (NOT_POSITIVE, (1,)),
        "batch_norm_groups": (NOT_POSITIVE, (1,)),
        "channel_multiple": (NOT_POSITIVE, (1,)),
    },
    EvalConfig: {
        "every_epochs": (NOT_POSITIVE, (1,)),
        "threshold": ((-0.1, 1.1), (0.0, 1.0)),
    },
    Config: {"seed": ((-1, 2**63), (0, 2**63 - 1))},
}


def _cases(column):
    return [
        pytest.param(kind, name, value, id=f"{kind.__name__}.{name}={value}")
        for kind, fields in RANGES.items()
        for name, values in fields.items()
        for value in values[column]
    ]


def _numbers(kind):
    """Returns the fields of a dataclass that hold numbers."""
    return [f.name for f in dataclasses.fields(kind) if "int" in str(f.type) or _is_float(f)]


def _is_float(field):
    return "float" in str(field.type) and "Literal" not in str(field.type)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_number_has_a_range(kind):
    assert set(_numbers(kind)) == set(RANGES[kind])


def test_every_dataclass_with_numbers_is_listed():
    kinds = {type(CONFIG), *map(type, vars(CONFIG).values())} - {tuple, int, Part}
    kinds |= {LossConfig, ParameterGroup, Preprocessing}
    assert {kind for kind in kinds if _numbers(kind)} == set(RANGES)
    assert not _numbers(ModelConfig)


@pytest.mark.parametrize(("kind", "name", "value"), _cases(0))
def test_a_number_out_of_range_is_refused_by_name_and_value(kind, name, value):
    with pytest.raises(ValueError, match=name) as error:
        dataclasses.replace(EXAMPLES[kind], **{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(("kind", "name", "value"), _cases(1))
def test_a_number_at_the_end_of_its_range_is_accepted(kind, name, value):
    assert getattr(dataclasses.replace(EXAMPLES[kind], **{name: value}), name) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, fields in RANGES.items()
        for name in fields
        if "float" in str(kind.__dataclass_fields__[name].type)
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name_and_value(kind, name, value):
    if "tuple" in str(kind.__dataclass_fields__[name].type):
        value = (1.0, value, 1.0)
    with pytest.raises(ValueError, match=name) as error:
        dataclasses.replace(EXAMPLES[kind], **{name: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize("terms", [(), (loss(asymmetric_loss), loss(asymmetric_loss, clip=0.0))])
def test_losses_are_at_least_one_and_each_once(terms):
    with pytest.raises(ValueError, match="losses: expected at least one, each once"):
        dataclasses.replace(CONFIG, losses=terms)


def test_a_loss_is_a_part_with_a_reduction_and_a_weight():
    term = loss(asymmetric_loss, gamma_neg=4.0, reduction="mean", weight=0.25)
    assert term == LossConfig(
        name="asymmetric_loss", kwargs={"gamma_neg": 4.0}, reduction="mean", weight=0.25
    )
    assert loss("own_losses:focal", gamma=2.0).name == "own_losses:focal"
    assert hash(term) == hash(loss(asymmetric_loss))


def test_arguments_of_a_parameter_group_are_those_that_json_gives_back():
    group = ParameterGroup(pattern="head.*", kwargs={"weight_decay": 0.0, "betas": [0.9, 0.99]})
    assert group.kwargs["betas"] == (0.9, 0.99)
    with pytest.raises(ValueError, match="'weight_decay' of the parameters head.*nan"):
        ParameterGroup(pattern="head.*", kwargs={"weight_decay": math.nan})


def test_defaults_are_parts_of_the_tables():
    assert CONFIG.model.head == part("linear")
    assert CONFIG.schedule == part("one_cycle")
    assert CONFIG.optimizer.algorithm == part("torch_adam")
    assert EvalConfig().evaluators == (part("multilabel"),)
