"""SupCon's pre-training and linear probe against cross-entropy, on digits with one label each.

    python -m mljax.train --config quickstart_supcon --workdir runs/supcon
    python -m mljax.train --config quickstart_supcon:stage=probe --workdir runs/probe
    python -m mljax.train --config quickstart_supcon:stage=cross_entropy --workdir runs/ce

The probe reads runs/supcon/best, or what `init_from` names. Network and epochs are the same: those
of the two stages together are those of cross-entropy. Khosla et al., "Supervised Contrastive
Learning", https://arxiv.org/abs/2004.11362.
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data import augment
from mljax.data.readers.digits import digits
from mljax.evaluators import NearestNeighbors, SingleLabel
from mljax.training.optimizer import torch_sgd
from mljax.training.schedules import warmup_cosine


def get_config(
    stage: Literal["pretrain", "probe", "cross_entropy"] = "pretrain",
    init_from: str = "runs/supcon/best",
) -> config.Config:
    """Returns the config of a stage.

    Args:
      stage: `pretrain`, then `probe`; or `cross_entropy` alone.
      init_from: what the probe reads.
    """
    pretrain, probe = stage == "pretrain", stage == "probe"
    colors = (part(augment.color_jitter), part(augment.random_gray)) if pretrain else ()
    cross_entropy = loss(
        losses.single_label_asymmetric_loss,
        gamma_pos=0.0,
        gamma_neg=0.0,
        smoothing=0.0,
        reduction="mean",
    )
    return config.Config(
        data=config.DataConfig(
            reader=part(digits, max_digits=1, num_images=1024),
            preprocessing=config.Preprocessing(image_size=32),
            # No flip: a mirrored digit is another sign.
            crop=part(augment.random_resized_crop, scale=(0.4, 1.0)),
            augment=colors,
            views=2 if pretrain else 1,
            batch_size=64,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.resnet18, layers=(1, 1, 1, 1), width=16, cifar_stem=True),
            head=part(heads.Projection, size=32) if pretrain else part(heads.Linear),
            init_from=init_from if probe else None,
            frozen=("backbone",) if probe else (),
        ),
        losses=(
            loss(losses.supervised_contrastive_loss, temperature=0.1, reduction="mean")
            if pretrain
            else cross_entropy,
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=0.5 if probe else 0.1,
            algorithm=part(torch_sgd, momentum=0.9, weight_decay=0.0 if probe else 1e-4),
        ),
        schedule=part(warmup_cosine, warmup_epochs=0.0 if probe else 1.0),
        train=config.TrainConfig(epochs={"pretrain": 16, "probe": 4, "cross_entropy": 20}[stage]),
        eval=config.EvalConfig(
            every_epochs=4,
            evaluators=(part(NearestNeighbors if pretrain else SingleLabel),),
            best_by="neighbor" if pretrain else "top1",
        ),
    )
