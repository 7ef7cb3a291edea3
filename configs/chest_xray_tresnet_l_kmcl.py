r"""TResNet-L with KMCL's head and losses on ChestX-ray14 at 448 pixels.

Sajedi et al., End-to-End Supervised Multilabel Contrastive Learning (KMCL),
https://arxiv.org/abs/2307.03967; `train_dist.py --dataset Xray` of mahdihosseini/KMCL, whose
TResNet-L is the L_V2, as launched on 4 GPUs: each normalizes its own images (`batch_norm_groups`),
and the mean over the GPUs divides the asymmetric loss, a sum, by 4 (`weight`). It contrasts the
images of each GPU; here all images are contrasted. It ran in half precision; here the backbone
computes in bfloat16, the head and the losses in float32.

    python -m converters.convert tresnet_l_v2_miil_21k.pth checkpoints/tresnet_l_v2
    python -m mljax.train --config configs/chest_xray_tresnet_l_kmcl.py \
        --workdir runs/chest_xray_l_kmcl

    --set model.head.kwargs.covariance=isotropic    one mean and variance for all dimensions
    --set model.head.kwargs.similarity=mahalanobis  or rbf: whether classes share variances

Expects data/chest_xray/{train,test}_label.csv and data/chest_xray/images/images. Here all images
with a finding are used; the original, and so its figure, takes the first tenth of them alone, in
training and in evaluation.

Published mAP: 31.5, the best evaluation of plain and averaged weights; covariance and similarity
are not stated. Not run here.
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
from mljax.data.readers import chest_xray


def get_config() -> Config:
    """Returns the recipe."""
    return Config(
        data=DataConfig(
            reader=part("chest_xray", root="data/chest_xray"),
            preprocessing=Preprocessing(image_size=448, mean=chest_xray.MEAN, std=chest_xray.STD),
            train_split="train",
            eval_split="test",
            augment=(
                part("cutout", factor=0.5),
                part("random_affine", degrees=45.0, translate=0.15, scale=(0.85, 1.15)),
            ),
            batch_size=128,
            eval_batch_size=128,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_l_v2"),
            head=part("kernel_mixture", covariance="anisotropic", similarity="bhattacharyya"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l_v2",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "eps": 1e-7},
                weight=0.25,
            ),
            LossConfig(name="reconstruction_loss", reduction="mean"),
            LossConfig(name="kernel_contrastive_loss", reduction="mean"),
        ),
        optimizer=OptimizerConfig(peak_lr=4e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=80, ema_decay=0.9997, batch_norm_groups=4),
    )
