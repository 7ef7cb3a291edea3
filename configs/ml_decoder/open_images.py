"""TResNet-M with ML-Decoder of 200 groups on OpenImages V6 at 224 pixels, 9,605 classes.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder publishes the weights
(tresnet_m_open_images_200_groups_86_8.pth), but neither the arguments of that run nor what became
of unannotated labels: these are the arguments of its COCO run, and unannotated labels count as
absent.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config ml_decoder/open_images --workdir runs/ml_decoder_open_images

Expects data/open_images/{oidv6-class-descriptions.csv,oidv6-classes-trainable.txt}, the
human-verified image labels oidv6-train-annotations-human-imagelabels.csv and
test-annotations-human-imagelabels.csv, and the images as {train,test}/ID.jpg; a short side of 256
pixels is enough. For the table that Alibaba-MIIL redistributes: `--set
data.reader.name=open_images_table --set data.eval_split=val`. Evaluation is over the annotated
labels, as published.
Published mAP: 86.8. Not run here.
"""

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.open_images import open_images
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(open_images, root="data/open_images"),
            preprocessing=config.Preprocessing(image_size=224),
            eval_split="test",
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=56,
            eval_batch_size=56,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m),
            head=part(heads.MLDecoder, num_groups=200),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_m",
        ),
        losses=(
            loss(
                losses.selective_loss,
                mode="negative",
                gamma_neg=4.0,
                gamma_unannotated=4.0,
                clip=0.05,
            ),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=40, ema_decay=0.9997),
        eval=config.EvalConfig(threshold=0.97),
    )
