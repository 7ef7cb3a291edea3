"""TResNet-M with the selective loss on OpenImages V6 at 224 pixels, 9,605 classes.

Ben-Baruch et al., Multi-label Classification with Partial Annotations using Class-aware Selective
Loss, https://arxiv.org/abs/2110.10955; `train.py` of Alibaba-MIIL/PartialLabelingCSL, of which
these are the defaults but for the mode. The exponents of the published runs are not known.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config configs/open_images_tresnet_m_csl.py --workdir runs/oi_csl

Published mAP, and what to add for it. None of them was run here.

    86.72  M, selective
    85.85  M, negative:  --set losses.0.kwargs.mode=negative
    85.38  M, ignore:    --set losses.0.kwargs.mode=ignore
    87.34  L_V2 by the name of its file, selective; from tresnet_l_v2_miil_21k.pth:
           --set model.backbone.name=tresnet_l_v2 --set model.init_from=checkpoints/tresnet_l_v2

Frequent classes are left out as well by `--set losses.0.kwargs.prior=FILE`; a run with `--set
losses.0.kwargs.mode=ignore --set train.estimate_prior=True` writes that file, prior.csv, to its
workdir.

Expects data/open_images/{oidv6-class-descriptions.csv,oidv6-classes-trainable.txt}, the
human-verified image labels oidv6-train-annotations-human-imagelabels.csv and
test-annotations-human-imagelabels.csv, and the images as {train,test}/ID.jpg; a short side of 256
pixels is enough. For the table that Alibaba-MIIL redistributes: `--set
data.reader.name=open_images_table --set data.eval_split=val`. Evaluation is over the annotated
labels, as published.
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
            reader=part("open_images", root="data/open_images"),
            preprocessing=Preprocessing(image_size=224),
            eval_split="test",
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=64,
            eval_batch_size=64,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m"),
            head=part("bottleneck"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_m",
        ),
        losses=(
            LossConfig(
                name="selective_loss",
                kwargs={
                    "mode": "selective",
                    "gamma_pos": 0.0,
                    "gamma_neg": 1.0,
                    "gamma_unannotated": 2.0,
                    "clip": 0.0,
                    "likelihood_topk": 5,
                    "prior_threshold": 0.05,
                },
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=2e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=30, ema_decay=0.9997),
        eval=EvalConfig(threshold=0.97),
    )
