"""TResNet with ML-Decoder on COCO 2014: L (Bottleneck blocks) at 448 pixels, M at 224, XL at 640.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; `train.py` of Alibaba-MIIL/ML_Decoder, with the asymmetric loss.
It ran in half precision on a single GPU; here the computation is bfloat16.

    python -m converters.convert tresnet_l_pretrain_ml_decoder.pth checkpoints/tresnet_l_mldecoder
    python -m mljax.train --config ml_decoder/coco --workdir runs/ml_decoder_coco_l
    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config ml_decoder/coco:size=m --workdir runs/ml_decoder_coco_m

Expects data/coco/{annotations,train2014,val2014}. Published mAP; none of them was run here, and the
weights that M and XL started from are not published:

    size=l   90.1 (90.0 by the name of its file)
    size=m   84.2
    size=xl  91.4; here from scratch
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.coco import coco
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config(size: Literal["l", "m", "xl"] = "l") -> config.Config:
    """Returns the config.

    Args:
      size: of the TResNet, whose images and initial weights depend on it.
    """
    backbone, image_size, init_from = {
        "l": (part(backbones.tresnet_l_v2), 448, "checkpoints/tresnet_l_mldecoder"),
        "m": (part(backbones.tresnet_m), 224, "checkpoints/tresnet_m"),
        "xl": (part(backbones.tresnet_l_v2, layers=(3, 8, 34, 5)), 640, None),
    }[size]
    return config.Config(
        data=config.DataConfig(
            reader=part(coco, root="data/coco", year=2014),
            preprocessing=config.Preprocessing(image_size=image_size),
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=56,
            eval_batch_size=56,
        ),
        model=config.ModelConfig(
            backbone=backbone,
            head=part(heads.MLDecoder),
            dtype="bfloat16",
            init_from=init_from,
        ),
        losses=(loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05),),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=40, ema_decay=0.9997),
        eval=config.EvalConfig(threshold=0.75),
    )
