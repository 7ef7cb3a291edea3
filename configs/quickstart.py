"""A miniature TResNet with the asymmetric loss on the embedded digits.

    python -m mljax.train --config quickstart --workdir runs/quickstart

Canvases of 32 pixels with one to four handwritten digits, ten classes; nothing is downloaded.
mAP on the 1,024 canvases to evaluate, measured here with seeds 0, 1 and 2: 98.8, 98.3, 99.2 on one
machine, 99.0, 98.3, 99.2 on another, whose sums round otherwise. It takes 89 s of CPU time,
compilation included.
"""

from mljax import backbones, config, losses
from mljax.config import loss, part
from mljax.data.readers.digits import digits
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(digits),
            preprocessing=config.Preprocessing(image_size=64),
            batch_size=64,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m, layers=(1, 1, 1, 1), width=16),
        ),
        losses=(loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05),),
        optimizer=config.OptimizerConfig(
            peak_lr=4e-3, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=4, ema_decay=0.95),
    )
