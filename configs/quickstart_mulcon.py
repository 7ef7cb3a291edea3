"""MulCon in two stages on the embedded digits: classification, then contrast of labels beside it."""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import color_jitter, random_affine
from mljax.data.readers.digits import digits
from mljax.training.optimizer import torch_adamw
from mljax.training.schedules import warmup_cosine


def get_config(
    stage: Literal[1, 2] = 1,
    epochs: float = 2.0,
    lr: float = 1e-3,
    width: int = 16,
    weight: float = 0.5,
    rate: float = 0.1,
    init_from: str = "runs/mulcon_1/best",
) -> config.Config:
    """Returns the config of a stage.

    Args:
      stage: 1 classifies; 2 goes on from it with two views of each image and the contrastive loss.
      epochs: passes over the data.
      init_from: what stage 2 reads.
    """
    contrast = loss(
        losses.label_contrastive_loss, temperature=0.2, base_temperature=0.2, weight=weight
    )
    classify = loss(
        losses.asymmetric_loss,
        gamma_neg=0.0,
        gamma_pos=0.0,
        clip=None,
        reduction="mean",
        weight=1 / 10,
    )
    return config.Config(
        data=config.DataConfig(
            reader=part(digits),
            preprocessing=config.Preprocessing(image_size=64),
            augment=(
                part(random_affine, degrees=10.0, translate=0.05, scale=(0.9, 1.1)),
                part(color_jitter),
            ),
            views=stage,
            batch_size=64 // stage,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m, layers=(1, 1, 1, 1), width=width),
            head=part(
                heads.LabelAttention,
                embedding_size=64,
                projection_size=None if stage == 1 else 32,
            ),
            init_from=init_from if stage == 2 else None,
        ),
        losses=(classify,) if stage == 1 else (classify, contrast),
        optimizer=config.OptimizerConfig(
            peak_lr=lr if stage == 1 else lr * rate,
            algorithm=part(torch_adamw, weight_decay=1e-4),
        ),
        schedule=part(warmup_cosine, warmup_epochs=epochs / 5, initial_factor=0.1),
        train=config.TrainConfig(epochs=epochs, ema_decay=0.95),
        eval=config.EvalConfig(threshold=0.5),
    )
