"""TResNet-L with the asymmetric loss on NUS-WIDE at 448 pixels.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
Alibaba-MIIL/ASL publishes the weights (NUS_WIDE_TRresNet_L_448_65.2.pth), but neither the arguments
of that run nor its split: these are the arguments of its COCO recipe.

    python -m converters.convert tresnet_l_448.pth checkpoints/tresnet_l
    python -m mljax.train --config configs/nus_wide_tresnet_l_asl.py --workdir runs/nus_wide_l

Expects data/nus_wide/{train,val}.csv with a header `image,airport,animal,...` (81 concepts), and
the images that they name.
Published mAP: 65.2. Not run here.
"""

from mljax.config.schema import (
    Config,
    DataConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Preprocessing,
    ScheduleConfig,
    TrainConfig,
    part,
)


def get_config() -> Config:
    """Returns the recipe."""
    return Config(
        data=DataConfig(
            reader=part("csv", root="data/nus_wide"),
            preprocessing=Preprocessing(image_size=448),
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=128,
            eval_batch_size=128,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_l"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05},
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=1e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(epochs=80),
        train=TrainConfig(epochs=41, ema_decay=0.9997),
    )
