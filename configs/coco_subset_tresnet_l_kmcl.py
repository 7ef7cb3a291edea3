r"""TResNet-L with KMCL's head and losses on 1,000 images of COCO 2014 at 448 pixels.

Sajedi et al., End-to-End Supervised Multilabel Contrastive Learning (KMCL),
https://arxiv.org/abs/2307.03967; `train_dist.py --dataset COCOSub --num-samples-sub 1000` of
mahdihosseini/KMCL, whose TResNet-L is the L_V2, as it would be launched on 4 GPUs: each normalizes
its own images (`batch_norm_groups`), and the mean over the GPUs divides the asymmetric loss, a sum,
by 4 (`weight`). It contrasts the images of each GPU; here all images are contrasted. The script
leaves this data set's labels apart by object size, which its loss cannot read; here, as in
`train.py`, a class is present if it is so in any size. It trains in half precision; here the
backbone computes in bfloat16, the head and the losses in float32.

    python -m converters.convert tresnet_l_v2_miil_21k.pth checkpoints/tresnet_l_v2
    python -m mljax.train --config configs/coco_subset_tresnet_l_kmcl.py \
        --workdir runs/coco_subset_l_kmcl

    --set model.head.kwargs.covariance=isotropic    one mean and variance for all dimensions
    --set model.head.kwargs.similarity=mahalanobis  or rbf: whether classes share variances
    --set data.reader.kwargs.image_ids.train=FILE   another subset

Expects data/coco/{annotations,train2014,val2014}, and the ids of the training images, one a line,
in data/coco/COCO_Subset_1000_Ids.csv: the original's src/datasets has such files of 1,000, 2,000,
5,000, 10,000, 20,000 and 40,000 ids. All of val2014 is evaluated. An epoch of 1,000 images is 7
steps.

There is no published figure. Not run here.
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
            reader=part(
                "coco",
                root="data/coco",
                year=2014,
                image_ids={"train": "data/coco/COCO_Subset_1000_Ids.csv"},
            ),
            preprocessing=Preprocessing(
                image_size=448, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            ),
            augment=(part("cutout", factor=0.5), part("randaugment")),
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
