"""TResNet-M with the selective loss on partially annotated COCO at 448 pixels.

Ben-Baruch et al., Multi-label Classification with Partial Annotations using Class-aware Selective
Loss, https://arxiv.org/abs/2110.10955; `train.py` of Alibaba-MIIL/PartialLabelingCSL with the
arguments of its README. `mode=ignore` is the temporary model, which learns from the annotated
labels alone; its mean prediction over the training is the class prior that `mode=selective` reads,
so it comes first. The other arguments of that run are not published, here the loss is
cross-entropy. After each epoch its workdir has prior.csv; at the end, where matplotlib is
installed, also prior.png, which compares it with how often each class is annotated.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config csl/coco:mode=ignore --workdir runs/prior_fix_per_class
    python -m mljax.train --config csl/coco --workdir runs/csl_coco

Either each class keeps 1,000 present and 1,000 absent training labels (FPC 1000, the default), or
each label is hidden with probability 0.5 (RPS 0.5, `hiding=random_per_sample`, whose prior belongs
in runs/prior_random_per_sample). Both runs hide the same labels. Published mAP, FPC then RPS; none
of them was run here:

    mode=selective                                   83.44  85.21  P-ASL(4,3,1), P-ASL(4,1,1)
    mode=negative                                    81.64  81.91  ASL(4,1)
    mode=negative,gamma_neg=0,gamma_unannotated=0    81.24  81.21  cross-entropy
    mode=ignore                                      76.46  84.90  cross-entropy

The commands of the README have gamma_pos 0, where the names of these rows end in 1. They set no
seed, so the hidden labels are others.

Expects data/coco/{annotations,train2014,val2014}.
"""

from typing import Literal

from mljax import backbones, config, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.partial import partial
from mljax.data.readers.coco import coco
from mljax.trackers.class_prior import ClassPrior, prior_csv
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config(
    mode: Literal["selective", "negative", "ignore"] = "selective",
    hiding: Literal["fix_per_class", "random_per_sample"] = "fix_per_class",
    gamma_neg: float | None = None,
    gamma_unannotated: float | None = None,
) -> config.Config:
    """Returns the config.

    Args:
      mode: what becomes of hidden labels, see `mljax.losses.selective_loss`.
      hiding: which labels are hidden, see `mljax.data.partial`.
      gamma_neg: focusing exponent of absent labels; None is that of the published run.
      gamma_unannotated: likewise of hidden labels.
    """
    published_neg, published_unannotated = {
        "selective": (3.0 if hiding == "fix_per_class" else 1.0, 4.0),
        "negative": (4.0, 4.0),
        "ignore": (0.0, 0.0),
    }[mode]
    selection = {}
    if mode == "selective":
        prior = part(prior_csv, path=f"runs/prior_{hiding}/prior.csv")
        selection = {"likelihood_topk": 5, "prior": prior, "prior_threshold": 0.5}
    return config.Config(
        data=config.DataConfig(
            reader=part(
                partial,
                reader=part(coco, root="data/coco", year=2014),
                method=hiding,
                amount=1000 if hiding == "fix_per_class" else 0.5,
                legacy=True,
            ),
            preprocessing=config.Preprocessing(image_size=448),
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=64,
            eval_batch_size=64,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_m",
        ),
        losses=(
            loss(
                losses.selective_loss,
                mode=mode,
                gamma_pos=0.0,
                gamma_neg=published_neg if gamma_neg is None else gamma_neg,
                gamma_unannotated=(
                    published_unannotated if gamma_unannotated is None else gamma_unannotated
                ),
                clip=0.0,
                **selection,
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
    )
