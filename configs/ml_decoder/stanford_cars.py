r"""TResNet-L (Bottleneck blocks) with ML-Decoder on Stanford-Cars at 384 pixels, a label an image.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder publishes the weights
(tresnet_l_stanford_card_96.41.pth), but not the arguments of that run: these are those of its COCO
run with the single-label loss.

    python -m converters.convert tresnet_l_pretrain_ml_decoder.pth checkpoints/tresnet_l_mldecoder
    python -m mljax.train --config ml_decoder/stanford_cars --workdir runs/cars
    python -m mljax.evaluate --checkpoint runs/cars --threshold 0 \
        --evaluator multilabel:top_k=1

Expects data/stanford_cars/{train,val}.csv with a header `image,classA,classB,...` and one 1 in each
row of zeros, and the images that they name. The OP that the last command prints in its row `top 1`
is the top-1 accuracy.
Published top-1 accuracy: 96.41; there is no published figure of its mAP. Not run here.

ML-Decoder's CIFAR-100 (published top-1 accuracy 95.1) takes the same form, with `--set
data.reader.kwargs.root=data/cifar100`; its image size and arguments are not published. Its
ResNet-50 on ImageNet (80.7) was trained by a script of timm that has no counterpart here.
"""

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.image_csv import csv_table
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(csv_table, root="data/stanford_cars"),
            preprocessing=config.Preprocessing(image_size=384),
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=56,
            eval_batch_size=56,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_l_v2),
            head=part(heads.MLDecoder),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l_mldecoder",
        ),
        losses=(loss(losses.single_label_asymmetric_loss, reduction="mean"),),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=40, ema_decay=0.9997),
    )
