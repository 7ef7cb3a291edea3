"""MulCon on COCO 2014: an embedding of every label, and contrast of those of different images.

Dao et al., "Contrastively Enforcing Distinctiveness for Multi-Label Image Classification",
https://arxiv.org/abs/2107.11626; SonDaoDuy/MulCon `train_attention_ema.py` (stage 1) and
`train_augmented_ema.py` (stage 2), as its README calls them.

    python -m converters.convert resnet101-63fe2227.pth checkpoints/resnet101
    python -m mljax.train --config mulcon/coco --workdir runs/mulcon_coco_1
    python -m mljax.train --config mulcon/coco:stage=2 --workdir runs/mulcon_coco_2

Expects data/coco/{annotations,train2014,val2014}; the original reads the same pictures by the lists
of `numbered_lists`, whose classes are in alphabetical order. Stage 1 ends after 15 of the 25 epochs
of its schedule, whose averaged weights stage 2 starts from there; here it starts from the better of
the averaged and the plain ones. The original ran on two GPUs, each of which normalized its half of
the batch: `--set train.batch_norm_groups=2` does so.

There is no published mAP of this code. Not run here.
"""

from typing import Literal

from mljax import backbones, config
from mljax.config import ParameterGroup, loss, part
from mljax.data.augment import horizontal_flip, randaugment, random_resized_crop
from mljax.data.readers.coco import coco
from mljax.heads.label_attention import LabelAttention
from mljax.losses import asymmetric_loss, label_contrastive_loss
from mljax.training.optimizer import torch_adamw, torch_sgd
from mljax.training.schedules import multi_step, warmup_epoch_cosine

# Of the head, what is as slow as the backbone in stage 2: all but the classifiers and projection.
ATTENTION = ("head.queries", "head.places?.*", "head.read.*", "head.labels.*")


def get_config(stage: Literal[1, 2] = 1, init_from: str = "runs/mulcon_coco_1") -> config.Config:
    """Returns the config of a stage.

    Args:
      stage: 1 learns to classify; 2 goes on with two views of each image and the contrastive loss.
      init_from: what stage 2 starts from: the workdir of stage 1, or a checkpoint.
    """
    first = stage == 1
    slow = ("backbone.*",) if first else ("backbone.*", *ATTENTION)
    # Without focus and clip it is binary cross-entropy, the mean over classes and images.
    classify = loss(
        asymmetric_loss, gamma_neg=0.0, gamma_pos=0.0, clip=None, reduction="mean", weight=1 / 80
    )
    contrast = loss(label_contrastive_loss, temperature=0.2, base_temperature=0.2, weight=0.5)
    return config.Config(
        data=config.DataConfig(
            reader=part(coco, root="data/coco", year=2014),
            preprocessing=config.Preprocessing(
                image_size=448, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            ),
            crop=part(random_resized_crop, scale=(0.875, 1.0)) if first else None,
            augment=(part(horizontal_flip), part(randaugment)),
            views=stage,
            batch_size=32 if first else 24,
            eval_batch_size=32,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.resnet101),
            head=part(LabelAttention, projection_size=None if first else 128),
            init_from="checkpoints/resnet101" if first else init_from,
        ),
        losses=(classify,) if first else (classify, contrast),
        optimizer=config.OptimizerConfig(
            peak_lr=2e-4 if first else 0.01,
            algorithm=part(torch_adamw, weight_decay=1e-4)
            if first
            else part(torch_sgd, momentum=0.9, weight_decay=1e-4),
            groups=tuple(ParameterGroup(pattern=path, rate_factor=0.1) for path in slow),
        ),
        schedule=part(warmup_epoch_cosine, epochs=25)
        if first
        else part(multi_step, milestones=tuple(range(20, 200, 20))),
        train=config.TrainConfig(epochs=15 if first else 200, ema_decay=0.9997),
        eval=config.EvalConfig(threshold=0.5),
    )
