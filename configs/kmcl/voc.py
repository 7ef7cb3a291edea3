"""TResNet with KMCL's head and losses on Pascal VOC 2007: M at 224 pixels, or L at 448.

Sajedi et al., End-to-End Supervised Multilabel Contrastive Learning (KMCL),
https://arxiv.org/abs/2307.03967; of mahdihosseini/KMCL, M is `train.py --dataset PascalVOC` on a
single GPU, L, an L_V2, is `train_dist.py` on 4 GPUs: each normalizes its own images
(`batch_norm_groups`), and the mean over the GPUs divides the asymmetric loss, a sum, by 4
(`weight`). It contrasts the images of each GPU; here all images are contrasted. They ran in half
precision; here the backbone computes in bfloat16, the head and the losses in float32.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config kmcl/voc --workdir runs/kmcl_voc_m
    python -m converters.convert tresnet_l_v2_miil_21k.pth checkpoints/tresnet_l_v2
    python -m mljax.train --config kmcl/voc:size=l --workdir runs/kmcl_voc_l

Expects data/voc/files/VOC2007/classification_{trainval,test}.csv (or, in its place, the lists in
VOCdevkit/VOC2007/ImageSets/Main) and data/voc/VOCdevkit/VOC2007/JPEGImages. Difficult objects count
as present in training and are left out of mAP, as in the original.

Published mAP, the best evaluation of plain and averaged weights; covariance and similarity are not
stated. Not run here.

    size=m  95.2
    size=l  96.2
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.voc_csv import voc_csv
from mljax.evaluators import Kernels, Multilabel
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle

# Of ImageNet.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def get_config(
    size: Literal["m", "l"] = "m",
    covariance: Literal["anisotropic", "isotropic"] = "anisotropic",
    similarity: Literal["bhattacharyya", "mahalanobis", "rbf"] = "bhattacharyya",
) -> config.Config:
    """Returns the config.

    Args:
      size: of the TResNet; images, batches and epochs grow with it.
      covariance: of the kernels; `isotropic` is one mean and variance for all dimensions.
      similarity: of the kernels; `mahalanobis` and `rbf` let classes share variances.
    """
    large = size == "l"
    return config.Config(
        data=config.DataConfig(
            reader=part(voc_csv, root="data/voc"),
            preprocessing=config.Preprocessing(
                image_size=448 if large else 224, mean=MEAN, std=STD
            ),
            train_split="trainval",
            eval_split="test",
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=128 if large else 64,
            eval_batch_size=128 if large else 64,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_l_v2 if large else backbones.tresnet_m),
            head=part(heads.KernelMixture, covariance=covariance, similarity=similarity),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l_v2" if large else "checkpoints/tresnet_m",
        ),
        losses=(
            loss(
                losses.asymmetric_loss,
                gamma_neg=4.0,
                gamma_pos=0.0,
                clip=0.05,
                eps=1e-7,
                weight=0.25 if large else 1.0,
            ),
            loss(losses.reconstruction_loss, reduction="mean"),
            loss(losses.kernel_contrastive_loss, reduction="mean"),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=4e-4 if large else 2e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(
            epochs=80 if large else 40, ema_decay=0.9997, batch_norm_groups=4 if large else 1
        ),
        eval=config.EvalConfig(
            every_epochs=1 if large else 10, evaluators=(part(Multilabel), part(Kernels))
        ),
    )
