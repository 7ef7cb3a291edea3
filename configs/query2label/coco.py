"""Query2Label: a transformer whose queries are the classes, on COCO 2014.

Liu et al., "Query2Label: A Simple Transformer Way to Multi-Label Classification",
https://arxiv.org/abs/2107.10834; SlongLiu/query2labels `main_mlc.py` and its README.

    python -m converters.convert resnet101-63fe2227.pth checkpoints/resnet101
    python -m mljax.train --config query2label/coco --workdir runs/query2label_coco

Expects data/coco/{annotations,train2014,val2014}. Batch norm, stem and first stage of the ResNet
stay as they were loaded; no picture is flipped. `size=l` is TResNet-L, which trains whole, from
checkpoints/tresnet_l.

Published mAP at 448 pixels: ResNet-101 84.9, TResNet-L 87.3; with image_size=576 ResNet-101 86.5.
None of them was run here.
"""

from typing import Literal

from mljax import backbones, config
from mljax.config import loss, part
from mljax.data.augment import randaugment
from mljax.data.readers.coco import coco
from mljax.heads.query2label import Query2Label
from mljax.losses import asymmetric_loss
from mljax.training.optimizer import torch_adamw
from mljax.training.schedules import one_cycle
from mljax.training.stopping import NoImprovement


def get_config(size: Literal["r101", "l"] = "r101", image_size: int = 448) -> config.Config:
    """Returns the config.

    Args:
      size: of the backbone, ResNet-101 or TResNet-L.
      image_size: the side of the square that images are resized to, a multiple of 32.
    """
    resnet = size == "r101"
    return config.Config(
        data=config.DataConfig(
            reader=part(coco, root="data/coco", year=2014),
            preprocessing=config.Preprocessing(
                image_size=image_size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            ),
            augment=(part(randaugment),),
            batch_size=64,
            eval_batch_size=64,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.resnet101, frozen_norm=True)
            if resnet
            else part(backbones.tresnet_l),
            head=part(Query2Label),
            init_from="checkpoints/resnet101" if resnet else "checkpoints/tresnet_l",
            frozen=("backbone.stem", "backbone.stages.0") if resnet else (),
        ),
        # The original divides by images and classes and multiplies by 1000.
        losses=(
            loss(
                asymmetric_loss,
                gamma_neg=2.0,
                gamma_pos=0.0,
                clip=None,
                eps=1e-5,
                reduction="mean",
                weight=1000 / 80,
            ),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adamw, weight_decay=1e-2)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=80, ema_decay=0.9997, stop=part(NoImprovement, patience=8)),
        eval=config.EvalConfig(threshold=0.5),
    )
