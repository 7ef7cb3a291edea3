"""Configs small enough for the tests of commands."""

import dataclasses

from mljax.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    loss,
    override,
    part,
)
from mljax.data.augment.cutout import cutout
from mljax.data.augment.randaugment import randaugment
from mljax.data.readers.digits import digits
from mljax.losses import asymmetric_loss
from tests.networks import BACKBONE, PREPROCESSING


def config(**data):
    """Returns a config for the small network on 20 canvases of digits."""
    fields = {"reader": part(digits, num_images=20), "preprocessing": PREPROCESSING} | data
    return Config(
        data=DataConfig(batch_size=8, eval_batch_size=8, **fields),
        model=ModelConfig(backbone=BACKBONE),
        losses=(loss(asymmetric_loss),),
        optimizer=OptimizerConfig(peak_lr=1e-3),
        train=TrainConfig(epochs=1.0),
        eval=EvalConfig(threshold=0.6),
    )


def training_config(*assignments):
    """Returns a config of 60 steps, 10 an epoch, with augmentation and a moving average.

    Its network has one block of each kind: what is compiled for it takes the most of these tests.

    Args:
      assignments: changes, as `optimizer.peak_lr=1e-2`.
    """
    changed = dataclasses.replace(
        config(reader=part(digits, num_images=80), augment=(part(cutout), part(randaugment))),
        model=ModelConfig(backbone=part("tresnet_m", layers=(1, 0, 1, 0), width=8)),
        optimizer=OptimizerConfig(peak_lr=1e-2),
        train=TrainConfig(
            epochs=6.0,
            ema_decay=0.9,
            checkpoint_every_steps=20,
            keep_checkpoints=3,
            log_every_steps=1,
        ),
        eval=EvalConfig(every_epochs=2),
    )
    return override(changed, assignments)


def write_training_config(folder):
    """Writes a config file for `--config`; returns its path."""
    path = folder / "config.py"
    path.write_text("from tests import small_configs\nget_config = small_configs.training_config\n")
    return str(path)
