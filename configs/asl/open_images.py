"""TResNet-L with the asymmetric loss on OpenImages V6 at 448 pixels, 9,605 classes.

Ridnik et al., Asymmetric Loss for Multi-Label Classification, https://arxiv.org/abs/2009.14119;
Alibaba-MIIL/ASL publishes the weights (Open_ImagesV6_TRresNet_L_448.pth, with an embedding before
the classifier), but neither the arguments of that run nor what became of unannotated labels: these
are the arguments of its COCO run, and unannotated labels count as absent.

    python -m converters.convert tresnet_l_448.pth checkpoints/tresnet_l
    python -m mljax.train --config asl/open_images --workdir runs/asl_open_images

Expects data/open_images/{oidv6-class-descriptions.csv,oidv6-classes-trainable.txt}, the
human-verified image labels oidv6-train-annotations-human-imagelabels.csv and
test-annotations-human-imagelabels.csv, and the images as {train,test}/ID.jpg; a short side of 256
pixels is enough. For the table that Alibaba-MIIL redistributes: `--set
data.reader.name=open_images_table --set data.eval_split=val`. Evaluation is over the annotated
labels, as published.
Published mAP: 86.3. Not run here.
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
            preprocessing=config.Preprocessing(image_size=448),
            eval_split="test",
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=128,
            eval_batch_size=128,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_l),
            head=part(heads.Bottleneck),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l",
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
        schedule=part(one_cycle, epochs=80.0),
        train=config.TrainConfig(epochs=41, ema_decay=0.9997),
    )
