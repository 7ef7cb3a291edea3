"""TResNet-L with the asymmetric loss on NUS-WIDE at 448 pixels.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
Alibaba-MIIL/ASL publishes the weights (NUS_WIDE_TRresNet_L_448_65.2.pth), but neither the arguments
of that run nor its split: these are the arguments of its COCO run.

    python -m converters.convert tresnet_l_448.pth checkpoints/tresnet_l
    python -m mljax.train --config asl/nus_wide --workdir runs/asl_nus_wide

Expects data/nus_wide/{train,val}.csv with a header `image,airport,animal,...` (81 concepts), and
the images that they name.
Published mAP: 65.2. Not run here.
"""

from mljax import backbones, config, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.image_csv import csv_table
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(csv_table, root="data/nus_wide"),
            preprocessing=config.Preprocessing(image_size=448),
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=128,
            eval_batch_size=128,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_l),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l",
        ),
        losses=(loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05),),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle, epochs=80.0),
        train=config.TrainConfig(epochs=41, ema_decay=0.9997),
    )
