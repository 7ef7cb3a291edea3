r"""TResNet-L (Bottleneck blocks) with ML-Decoder on COCO 2014 at 448 pixels.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; `train.py` of Alibaba-MIIL/ML_Decoder, with the asymmetric loss.
It ran in half precision on a single GPU; here the computation is bfloat16.

    python -m converters.convert tresnet_l_pretrain_ml_decoder.pth checkpoints/tresnet_l_mldecoder
    python -m mljax.train --config configs/coco_tresnet_l_mldecoder.py --workdir runs/coco_l_mld

Published mAP, and what to add for it. None of them was run here; the starts of M and XL are not
published.

    90.1  L at 448 pixels (90.0 by the name of its file)
    84.2  M at 224 pixels; from tresnet_m_miil_21k.pth:
          --set model.backbone.name=tresnet_m --set data.preprocessing.image_size=224 \
          --set model.init_from=checkpoints/tresnet_m
    91.4  XL at 640 pixels:
          --set model.backbone.kwargs.layers=3,8,34,5 --set data.preprocessing.image_size=640 \
          --set model.init_from=None

Expects data/coco/{annotations,train2014,val2014}.
"""

from mljax.config.schema import (
    Config,
    DataConfig,
    EvalConfig,
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
            batch_size=56,
            eval_batch_size=56,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_l_v2"),
            head=part("ml_decoder"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l_mldecoder",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05},
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=1e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=40, ema_decay=0.9997),
        eval=EvalConfig(threshold=0.75),
    )
