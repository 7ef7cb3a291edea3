r"""TResNet-L with the asymmetric loss on COCO 2014 at 448 pixels.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
`train.py` of Alibaba-MIIL/ASL with `--model-name=tresnet_l --image-size=448`. The original's
schedule is made for 80 epochs and stops after 41. It ran in half precision on a single GPU; here
the computation is bfloat16.

    python -m converters.convert tresnet_l_448.pth checkpoints/tresnet_l
    python -m mljax.train --config configs/coco_tresnet_l_asl.py --workdir runs/coco_l

Expects data/coco/{annotations,train2014,val2014}.
Published mAP: 86.6. Not run here. XL at 640 pixels (published mAP 88.4, not run here either):

    --set model.backbone.name=tresnet_xl --set data.preprocessing.image_size=640 \
    --set model.init_from=checkpoints/tresnet_xl
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
            reader=part("coco", root="data/coco", year=2014),
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
