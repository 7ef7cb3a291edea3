"""MulCon's two stages on the embedded digits, and its first stage alone over as many images.

    python -m mljax.train --config quickstart --workdir runs/quickstart
    python -m mljax.train --config quickstart_mulcon --workdir runs/mulcon_1
    python -m mljax.train --config quickstart_mulcon:stage=2 --workdir runs/mulcon_2
    python -m mljax.train --config quickstart_mulcon --workdir runs/mulcon_long --set train.epochs=2

Dao et al., https://arxiv.org/abs/2107.11626. As the original starts from a ResNet of ImageNet, so
stage 1 starts from the backbone of another run on the digits: from fresh weights the head still
gives the base rates after 128 steps. Stage 2 sees two views of each image, of half as many images.

mAP on 1,024 canvases, measured here with seed 0 alone: the quickstart 99.0, stage 1 98.6, stage 2
97.7; stage 1 for twice as long 98.6. So contrast does not help here: stage 2 without it, by
`--set losses.1.weight=0.0`, reaches 98.5. CPU time in this order, compilation included, on a busy
machine: 81, 67, 69, 56 and 73 s; the fourth found its programs compiled.
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import ParameterGroup, loss, part
from mljax.data.augment import random_affine
from mljax.data.readers.digits import digits
from mljax.training.optimizer import torch_adamw
from mljax.training.schedules import warmup_cosine


def get_config(stage: Literal[1, 2] = 1, init_from: str | None = None) -> config.Config:
    """Returns the config of a stage.

    Args:
      stage: 1 learns to classify; 2 goes on with two views of each image and the contrastive loss.
      init_from: the run that the stage starts from; None is that of the commands above.
    """
    first = stage == 1
    # Without focus and clip it is binary cross-entropy, the mean over classes and images.
    classify = loss(
        losses.asymmetric_loss,
        gamma_neg=0.0,
        gamma_pos=0.0,
        clip=None,
        reduction="mean",
        weight=1 / 10,
    )
    contrast = loss(
        losses.label_contrastive_loss, temperature=0.2, base_temperature=0.2, weight=0.5
    )
    return config.Config(
        data=config.DataConfig(
            reader=part(digits),
            preprocessing=config.Preprocessing(image_size=64),
            augment=(part(random_affine, degrees=10.0, translate=0.05, scale=(0.9, 1.1)),),
            views=stage,
            batch_size=64 // stage,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m, layers=(1, 1, 1, 1), width=16),
            head=part(
                heads.LabelAttention, embedding_size=64, projection_size=None if first else 32
            ),
            init_from=init_from or ("runs/quickstart" if first else "runs/mulcon_1"),
        ),
        losses=(classify,) if first else (classify, contrast),
        optimizer=config.OptimizerConfig(
            peak_lr=2e-3,
            algorithm=part(torch_adamw, weight_decay=1e-4),
            groups=(ParameterGroup(pattern="backbone.*", rate_factor=0.1),),
        ),
        schedule=part(warmup_cosine, warmup_epochs=0.2 / stage, initial_factor=0.1),
        train=config.TrainConfig(epochs=1 / stage, ema_decay=0.95),
        eval=config.EvalConfig(threshold=0.5),
    )
