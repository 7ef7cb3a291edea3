"""SupCon on CIFAR-10 and CIFAR-100: contrastive pre-training, then a linear probe; cross-entropy.

    python -m mljax.train --config supcon/cifar --workdir runs/supcon
    python -m mljax.train --config supcon/cifar:stage=probe --workdir runs/supcon_probe
    python -m mljax.train --config supcon/cifar:stage=cross_entropy --workdir runs/ce

The probe reads runs/supcon, or what `init_from` names: any checkpoint with this backbone.

Khosla et al., "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362. The numbers are
those of the commands in the README of HobbitLong/SupContrast: batches of 1,024 for the training
(SimCLR with `method=simclr`), of 512 for the probe. Its ResNet-50 has a top-1 accuracy, in percent,
with cross-entropy of 95.0, SupCon 96.0 and SimCLR 93.6 on CIFAR-10; 75.3, 76.5 and 70.7 on
CIFAR-100. Reported, not run here.
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data import augment
from mljax.data.readers.cifar import cifar10, cifar100
from mljax.evaluators import NearestNeighbors, SingleLabel
from mljax.training.optimizer import torch_sgd
from mljax.training.schedules import epoch_cosine, linear_warmup, multi_step

STATISTICS = {
    10: {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)},
    100: {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)},
}


def get_config(
    root: str = "data/cifar-10-batches-bin",
    classes: Literal[10, 100] = 10,
    stage: Literal["pretrain", "probe", "cross_entropy"] = "pretrain",
    method: Literal["supcon", "simclr"] = "supcon",
    init_from: str = "runs/supcon",
) -> config.Config:
    """Returns the config of a stage.

    Args:
      root: the folder of the binary files.
      classes: which of the two data sets.
      stage: `pretrain`, then `probe`; or `cross_entropy` alone.
      method: of the pre-training: whether images of one class are positives.
      init_from: what the probe reads.
    """
    pretrain, probe = stage == "pretrain", stage == "probe"
    colors = (part(augment.color_jitter), part(augment.random_gray)) if pretrain else ()
    contrast = {"temperature": 0.1} if method == "supcon" else {"temperature": 0.5, "labels": None}
    cross_entropy = loss(
        losses.single_label_asymmetric_loss,
        gamma_pos=0.0,
        gamma_neg=0.0,
        smoothing=0.0,
        reduction="mean",
    )
    return config.Config(
        data=config.DataConfig(
            reader=part(cifar10 if classes == 10 else cifar100, root=root),
            preprocessing=config.Preprocessing(image_size=32, **STATISTICS[classes]),
            eval_split="test",
            crop=part(augment.random_resized_crop, scale=(0.2, 1.0)),
            augment=(part(augment.horizontal_flip), *colors),
            views=2 if pretrain else 1,
            batch_size=512 if probe else 1024,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.resnet50, cifar_stem=True),
            head=part(heads.Projection if pretrain else heads.Linear),
            init_from=init_from if probe else None,
            frozen=("backbone",) if probe else (),
        ),
        losses=(
            loss(losses.supervised_contrastive_loss, reduction="mean", **contrast)
            if pretrain
            else cross_entropy,
        ),
        optimizer=config.OptimizerConfig(
            peak_lr={"pretrain": 0.5, "probe": 5.0, "cross_entropy": 0.8}[stage],
            algorithm=part(torch_sgd, momentum=0.9, weight_decay=0.0 if probe else 1e-4),
        ),
        schedule=part(multi_step, milestones=(60, 75, 90), factor=0.2)
        if probe
        else part(linear_warmup, then=part(epoch_cosine)),
        train=config.TrainConfig(
            epochs={"pretrain": 1000, "probe": 100, "cross_entropy": 500}[stage]
        ),
        eval=config.EvalConfig(
            every_epochs=10 if pretrain else 1,
            evaluators=(part(NearestNeighbors if pretrain else SingleLabel),),
            best_by="neighbor" if pretrain else "top1",
        ),
    )
