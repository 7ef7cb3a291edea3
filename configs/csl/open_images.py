"""TResNet with the selective loss on OpenImages V6 at 224 pixels, 9,605 classes.

Ben-Baruch et al., Multi-label Classification with Partial Annotations using Class-aware Selective
Loss, https://arxiv.org/abs/2110.10955; `train.py` of Alibaba-MIIL/PartialLabelingCSL, of which
these are the defaults but for the mode. The exponents of the published runs are not known.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config csl/open_images --workdir runs/csl_open_images

Published mAP; none of them was run here:

    mode=selective          86.72
    mode=negative           85.85
    mode=ignore             85.38
    mode=selective,size=l   87.34 (L_V2 by the name of its file; from tresnet_l_v2_miil_21k.pth)

Frequent classes are left out as well by `prior=FILE`; `mode=ignore` writes that file, prior.csv, to
its workdir.

Expects data/open_images/{oidv6-class-descriptions.csv,oidv6-classes-trainable.txt}, the
human-verified image labels oidv6-train-annotations-human-imagelabels.csv and
test-annotations-human-imagelabels.csv, and the images as {train,test}/ID.jpg; a short side of 256
pixels is enough. For the table that Alibaba-MIIL redistributes: `--set
data.reader.name=open_images_table --set data.eval_split=val`. Evaluation is over the annotated
labels, as published.
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.open_images import open_images
from mljax.trackers.class_prior import ClassPrior, prior_csv
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config(
    mode: Literal["selective", "negative", "ignore"] = "selective",
    size: Literal["m", "l"] = "m",
    prior: str | None = None,
) -> config.Config:
    """Returns the config.

    Args:
      mode: what becomes of unannotated labels, see `mljax.losses.selective_loss`.
      size: of the TResNet.
      prior: a file of class priors, which the mode `selective` can read.
    """
    backbone, init_from = {
        "m": (backbones.tresnet_m, "checkpoints/tresnet_m"),
        "l": (backbones.tresnet_l_v2, "checkpoints/tresnet_l_v2"),
    }[size]
    return config.Config(
        data=config.DataConfig(
            reader=part(open_images, root="data/open_images"),
            preprocessing=config.Preprocessing(image_size=224),
            eval_split="test",
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=64,
            eval_batch_size=64,
        ),
        model=config.ModelConfig(
            backbone=part(backbone),
            head=part(heads.Bottleneck),
            dtype="bfloat16",
            init_from=init_from,
        ),
        losses=(
            loss(
                losses.selective_loss,
                mode=mode,
                gamma_pos=0.0,
                gamma_neg=1.0,
                gamma_unannotated=2.0,
                clip=0.0,
                likelihood_topk=5,
                prior_threshold=0.05,
                **({} if prior is None else {"prior": part(prior_csv, path=prior)}),
            ),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=2e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(
            epochs=30,
            ema_decay=0.9997,
            trackers=(part(ClassPrior),) if mode == "ignore" else (),
        ),
        eval=config.EvalConfig(threshold=0.97),
    )
