"""CSRA: class scores at every place, averaged evenly and by attention, on COCO 2014.

Zhu and Wu, "Residual Attention: A Simple but Effective Method for Multi-Label Recognition",
https://arxiv.org/abs/2108.02456; Kevinz-code/CSRA `main.py` and its README.

    python -m converters.convert resnet101-63fe2227.pth checkpoints/resnet101
    python -m mljax.train --config csra/coco --workdir runs/csra_coco

Expects data/coco/{annotations,train2014,val2014}. Pixels are read from 0 to 1, without ImageNet's
statistics.

Published mAP: with 4 heads 83.3, with 6 heads 83.5. Not run here.
"""

from mljax import backbones, config
from mljax.config import loss, part
from mljax.data.augment import horizontal_flip, random_resized_crop
from mljax.data.readers.coco import coco
from mljax.heads.csra import CSRA, TEMPERATURES
from mljax.losses import asymmetric_loss
from mljax.training.optimizer import torch_sgd
from mljax.training.schedules import linear_warmup, multi_step


def get_config(num_heads: int = 4) -> config.Config:
    """Returns the config.

    Args:
      num_heads: 1, 2, 4, 6 or 8, each with its own temperature.
    """
    return config.Config(
        data=config.DataConfig(
            reader=part(coco, root="data/coco", year=2014),
            preprocessing=config.Preprocessing(image_size=448),
            crop=part(random_resized_crop, scale=(0.7, 1.0)),
            augment=(part(horizontal_flip),),
            batch_size=16,
            eval_batch_size=32,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.resnet101),
            head=part(CSRA, temperatures=TEMPERATURES[num_heads], weight=0.5),
            init_from="checkpoints/resnet101",
        ),
        # Without focus and clip it is binary cross-entropy, the mean over classes and images.
        losses=(
            loss(
                asymmetric_loss,
                gamma_neg=0.0,
                gamma_pos=0.0,
                clip=None,
                reduction="mean",
                weight=1 / 80,
            ),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=0.1,
            algorithm=part(torch_sgd, momentum=0.9, weight_decay=1e-4),
            groups=(config.ParameterGroup(pattern="backbone.*", rate_factor=0.1),),
        ),
        schedule=part(
            linear_warmup,
            then=part(multi_step, milestones=tuple(range(5, 30, 5))),
            epochs=2.0,
            initial_rate=0.0,
        ),
        train=config.TrainConfig(epochs=30),
        eval=config.EvalConfig(threshold=0.5),
    )
