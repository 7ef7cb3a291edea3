"""TResNet-M with ML-Decoder of 200 groups on OpenImages V6 at 224 pixels, 9,605 classes.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder publishes the weights
(tresnet_m_open_images_200_groups_86_8.pth), but neither the arguments of that run nor what became
of unannotated labels: these are the arguments of its COCO recipe, and unannotated labels count as
absent.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config configs/open_images_tresnet_m_mldecoder.py --workdir runs/oi_mld

Expects data/open_images/{oidv6-class-descriptions.csv,oidv6-classes-trainable.txt}, the
human-verified image labels oidv6-train-annotations-human-imagelabels.csv and
test-annotations-human-imagelabels.csv, and the images as {train,test}/ID.jpg; a short side of 256
pixels is enough. For the table that Alibaba-MIIL redistributes: `--set
data.reader.name=open_images_table --set data.eval_split=val`. Evaluation is over the annotated
labels, as published.
Published mAP: 86.8. Not run here.
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
            batch_size=56,
            eval_batch_size=56,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m"),
            head=part("ml_decoder", num_groups=200),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_m",
        ),
        losses=(
            LossConfig(
                name="selective_loss",
                kwargs={
                    "mode": "negative",
                    "gamma_neg": 4.0,
                    "gamma_unannotated": 4.0,
                    "clip": 0.05,
                },
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=1e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=40, ema_decay=0.9997),
        eval=EvalConfig(threshold=0.97),
    )
