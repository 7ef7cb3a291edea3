"""Configs as typed, frozen dataclasses, and the parts that they name."""

from mljax.config.load import from_json, load_config, override, to_json
from mljax.config.part import Part, part
from mljax.config.schema import (
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ParameterGroup,
    Preprocessing,
    TrainConfig,
    loss,
)
from mljax.config.shipped import list_configs

__all__ = [
    "Config",
    "DataConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ParameterGroup",
    "Part",
    "Preprocessing",
    "TrainConfig",
    "from_json",
    "list_configs",
    "load_config",
    "loss",
    "override",
    "part",
    "to_json",
]
