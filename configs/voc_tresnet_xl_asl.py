"""TResNet-XL with the asymmetric loss on Pascal VOC 2007 at 448 pixels.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
the weights are published by Alibaba-MIIL/ASL, but the arguments of that run are not: these are the
ones of its COCO recipe. The cycle is made for 80 epochs, of which 41 run.

    python -m converters.convert tresnet_xl_448.pth checkpoints/tresnet_xl
    python -m mljax.train --config configs/voc_tresnet_xl_asl.py --workdir runs/voc_xl

Expects data/VOC2007/{Annotations,ImageSets,JPEGImages}.
Published mAP: 96.0. Not run here.
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
            reader=part("voc", root="data/VOC2007"),
            preprocessing=Preprocessing(image_size=448),
            train_split="trainval",
            eval_split="test",
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=128,
            eval_batch_size=128,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_xl"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_xl",
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
