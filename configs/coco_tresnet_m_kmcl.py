"""TResNet-M with KMCL's head and losses on COCO 2014 at 224 pixels.

Sajedi et al., End-to-End Supervised Multilabel Contrastive Learning (KMCL),
https://arxiv.org/abs/2307.03967; `train.py --dataset COCO` of mahdihosseini/KMCL. It ran in half
precision on a single GPU; here the backbone computes in bfloat16, the head and the losses in
float32.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config configs/coco_tresnet_m_kmcl.py --workdir runs/coco_m_kmcl

    --set model.head.kwargs.covariance=isotropic    one mean and variance for all dimensions
    --set model.head.kwargs.similarity=mahalanobis  or rbf: whether classes share variances

Expects data/coco/{annotations,train2014,val2014}.

Published mAP: 82.1, the best evaluation of plain and averaged weights; covariance and similarity
are not stated. Not run here.
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
            preprocessing=Preprocessing(
                image_size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            ),
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=64,
            eval_batch_size=64,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m"),
            head=part("kernel_mixture", covariance="anisotropic", similarity="bhattacharyya"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_m",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "eps": 1e-7},
            ),
            LossConfig(name="reconstruction_loss", reduction="mean"),
            LossConfig(name="kernel_contrastive_loss", reduction="mean"),
        ),
        optimizer=OptimizerConfig(peak_lr=2e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=40, ema_decay=0.9997),
        eval=EvalConfig(every_epochs=10),
    )
