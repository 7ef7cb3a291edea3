"""What a checkpoint, a config and a command together say of the data and the decisions."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mljax.checkpoints.checkpoint import read_config
from mljax.config.load import load_config, override
from mljax.config.schema import DataConfig, EvalConfig
from mljax.models.classifier import Classifier


def read_data_config(
    checkpoint: Path, model: Classifier, given: str | None, changes: Sequence[str]
) -> tuple[DataConfig, EvalConfig]:
    """Returns what the config says of data and evaluation, with the command's changes.

    The network's own preprocessing comes before the config's, and the command's before both. A
    folder for resized images counts if the command names it: that of the training may be another
    machine's.

    Args:
      checkpoint: the folder, whose config is read if none is given.
      model: its network.
      given: a config file, or the name of one that ships.
      changes: of the command, `path=value`.

    Raises:
      ValueError: if there is no config.
    """
    config = read_config(checkpoint) if given is None else load_config(given)
    if config is None:
        raise ValueError(
            f"{checkpoint} holds no config that would say where the images are; name one by "
            "--config; `python -m mljax.train --list-configs` lists those that ship"
        )
    preprocessing = model.preprocessing or config.data.preprocessing
    data = dataclasses.replace(config.data, preprocessing=preprocessing, cache=None)
    config = override(dataclasses.replace(config, data=data), changes)
    return config.data, config.eval


def threshold_of(
    model: Classifier, configured: float, option: float | None, changes: Sequence[str]
) -> float | None:
    """Returns the threshold of a command's decisions; None stands for the network's calibrated one.

    An option of the command comes first, then what it sets in the config, then what was calibrated,
    then the config.

    Args:
      model: the network.
      configured: the config's `eval.threshold`, with the command's changes.
      option: the command's own.
      changes: of the command, `path=value`.
    """
    if option is not None:
        return option
    is_set = any(change.partition("=")[0] == "eval.threshold" for change in changes)
    return None if model.thresholds is not None and not is_set else configured
