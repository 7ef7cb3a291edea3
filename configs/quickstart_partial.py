"""Partial labels on the embedded digits: a miniature TResNet that sees 30% of the labels.

Ben-Baruch et al., Multi-label Classification with Partial Annotations using Class-aware Selective
Loss, https://arxiv.org/abs/2110.10955. Each training label is hidden with probability 0.7; the
validation labels are whole.

    python -m mljax.train --config quickstart_partial --workdir runs/partial
    python -m mljax.train --config quickstart_partial:mode=ignore --workdir runs/partial_ignore

There is no published figure for this data. mAP measured here with seeds 0, 1 and 2, by `python -m
benchmarks.partial_labels`, which takes 4 minutes on 2 CPU cores for the three modes with one seed:

    mode=ignore     92.47  88.02  92.18  (mean 90.89)
    mode=negative   87.22  86.86  87.42  (mean 87.17)
    mode=selective  94.44  91.80  91.58  (mean 92.61)
"""

from typing import Literal

from mljax import backbones, config, losses
from mljax.config import loss, part
from mljax.data.partial import partial
from mljax.data.readers.digits import digits
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config(
    mode: Literal["selective", "ignore", "negative"] = "selective",
) -> config.Config:
    """Returns the config.

    Args:
      mode: what becomes of hidden labels, see `mljax.losses.selective_loss`.
    """
    return config.Config(
        data=config.DataConfig(
            reader=part(partial, reader=part(digits), method="random_per_sample", amount=0.7),
            preprocessing=config.Preprocessing(image_size=64),
            batch_size=64,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m, layers=(1, 1, 1, 1), width=16),
        ),
        losses=(
            loss(
                losses.selective_loss,
                gamma_pos=0.0,
                gamma_neg=1.0,
                gamma_unannotated=4.0,
                mode=mode,
                # An image has about 2.3 of the 10 classes; 70% of them are hidden.
                likelihood_topk=2,
            ),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=4e-3, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=6, ema_decay=0.95),
    )
