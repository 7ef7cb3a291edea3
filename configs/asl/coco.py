"""TResNet with the asymmetric loss on COCO 2014: M at 224 pixels, L at 448, or XL at 640.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
`train.py` of Alibaba-MIIL/ASL, for L with `--model-name=tresnet_l --image-size=448`. The original's
schedule is made for 80 epochs and stops after 41. It ran in half precision on a single GPU; here
the computation is bfloat16.

Each starts from converted weights: tresnet_m_miil_21k.pth (ImageNet-21k), tresnet_l_448.pth or
tresnet_xl_448.pth.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config asl/coco --workdir runs/asl_coco_m
    python -m converters.convert tresnet_l_448.pth checkpoints/tresnet_l
    python -m mljax.train --config asl/coco:size=l --workdir runs/asl_coco_l

Expects data/coco/{annotations,train2014,val2014}. Published mAP; none of them was run here:

    size=m   81.8
    size=l   86.6
    size=xl  88.4
"""

from typing import Literal

from mljax import backbones, config, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.coco import coco
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config(size: Literal["m", "l", "xl"] = "m") -> config.Config:
    """Returns the config.

    Args:
      size: of the TResNet; images grow with it.
    """
    backbone, image_size = {
        "m": (backbones.tresnet_m, 224),
        "l": (backbones.tresnet_l, 448),
        "xl": (backbones.tresnet_xl, 640),
    }[size]
    return config.Config(
        data=config.DataConfig(
            reader=part(coco, root="data/coco", year=2014),
            preprocessing=config.Preprocessing(image_size=image_size),
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=128,
            eval_batch_size=128,
        ),
        model=config.ModelConfig(
            backbone=part(backbone),
            dtype="bfloat16",
            init_from=f"checkpoints/tresnet_{size}",
        ),
        losses=(loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05),),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle, epochs=80.0),
        train=config.TrainConfig(epochs=41, ema_decay=0.9997),
    )
