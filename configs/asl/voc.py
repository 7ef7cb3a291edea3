"""TResNet-XL with the asymmetric loss on Pascal VOC 2007 at 448 pixels.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
the weights are published by Alibaba-MIIL/ASL, but the arguments of that run are not: these are
those of its COCO run. The cycle is made for 80 epochs, of which 41 run.

    python -m converters.convert tresnet_xl_448.pth checkpoints/tresnet_xl
    python -m mljax.train --config asl/voc --workdir runs/asl_voc

Expects data/VOC2007/{Annotations,ImageSets,JPEGImages}.
Published mAP: 96.0. Not run here.
"""

from mljax import backbones, config, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.voc import voc
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(voc, root="data/VOC2007"),
            preprocessing=config.Preprocessing(image_size=448),
            train_split="trainval",
            eval_split="test",
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=128,
            eval_batch_size=128,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_xl),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_xl",
        ),
        losses=(loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05),),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle, epochs=80.0),
        train=config.TrainConfig(epochs=41, ema_decay=0.9997),
    )
