"""TResNet-L with the asymmetric loss on OpenImages V6 at 448 pixels, 9,605 classes.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
Alibaba-MIIL/ASL publishes the weights (Open_ImagesV6_TRresNet_L_448.pth, with an embedding before
the classifier), but neither the arguments of that run nor what became of unannotated labels: these
are the arguments of its COCO recipe, and unannotated labels count as absent.

    python -m converters.convert tresnet_l_448.pth checkpoints/tresnet_l
    python -m mljax.train --config configs/open_images_tresnet_l_asl.py --workdir runs/oi_l

Expects data/open_images/{oidv6-class-descriptions.csv,oidv6-classes-trainable.txt}, the
human-verified image labels oidv6-train-annotations-human-imagelabels.csv and
test-annotations-human-imagelabels.csv, and the images as {train,test}/ID.jpg; a short side of 256
pixels is enough. For the table that Alibaba-MIIL redistributes: `--set
data.reader.name=open_images_table --set data.eval_split=val`. Evaluation is over the annotated
labels, as published.
Published mAP: 86.3. Not run here.
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
            reader=part("open_images", root="data/open_images"),
            preprocessing=Preprocessing(image_size=448),
            eval_split="test",
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=128,
            eval_batch_size=128,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_l"),
            head=part("bottleneck"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l",
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
        schedule=ScheduleConfig(epochs=80),
        train=TrainConfig(epochs=41, ema_decay=0.9997),
    )
