"""TResNet with KMCL's head and losses on 1,000 images of COCO 2014: M at 224 pixels, or L at 448.

Sajedi et al., End-to-End Supervised Multilabel Contrastive Learning (KMCL),
https://arxiv.org/abs/2307.03967; of mahdihosseini/KMCL, with `--dataset COCOSub --num-samples-sub
1000`, M is `train.py` on a single GPU, L, an L_V2, is `train_dist.py` as it would be launched on 4
GPUs: each normalizes its own images (`batch_norm_groups`), and the mean over the GPUs divides the
asymmetric loss, a sum, by 4 (`weight`). It contrasts the images of each GPU; here all images are
contrasted. The script of L leaves this data set's labels apart by object size, which its loss
cannot read; here, as in that of M, a class is present if it is so in any size. They train in half
precision; here the backbone computes in bfloat16, the head and the losses in float32.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config kmcl/coco_subset --workdir runs/kmcl_coco_subset_m
    python -m converters.convert tresnet_l_v2_miil_21k.pth checkpoints/tresnet_l_v2
    python -m mljax.train --config kmcl/coco_subset:size=l --workdir runs/kmcl_coco_subset_l

Expects data/coco/{annotations,train2014,val2014}, and the ids of the training images, one a line,
in data/coco/COCO_Subset_1000_Ids.csv: the original's src/datasets has such files of 1,000, 2,000,
5,000, 10,000, 20,000 and 40,000 ids; `--set data.reader.kwargs.image_ids.train=FILE` takes another
one. All of val2014 is evaluated.

There is no published figure. Not run here.
"""

from typing import Literal

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.coco import coco
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
            reader=part(
                coco,
                root="data/coco",
                year=2014,
                image_ids={"train": "data/coco/COCO_Subset_1000_Ids.csv"},
            ),
            preprocessing=config.Preprocessing(
                image_size=448 if large else 224, mean=MEAN, std=STD
            ),
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
