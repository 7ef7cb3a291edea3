"""ML-GCN: ResNet-101 whose classifiers a graph over the classes computes, on VOC 2007.

Chen et al., "Multi-Label Image Recognition with Graph Convolutional Networks",
https://arxiv.org/abs/1904.03582; `demo_voc2007_gcn.py` of megvii-research/ML-GCN.

    python -m converters.convert resnet101-63fe2227.pth checkpoints/resnet101
    python -m mljax.train --config ml_gcn/voc --workdir runs/ml_gcn_voc

Expects data/VOC2007, VOC's own folder. The original lets the rate fall after epoch
30, which its 20 epochs never reach.
Published mAP: 94.0. Not run here.
"""

from mljax import backbones, config
from mljax.config import loss, part
from mljax.data.augment import horizontal_flip, multi_scale_crop
from mljax.data.readers.voc import VOC_CLASSES, voc
from mljax.heads.ml_gcn import MLGCN
from mljax.losses import asymmetric_loss
from mljax.training.optimizer import torch_sgd
from mljax.training.schedules import constant


def get_config(word_vectors: str | None = None) -> config.Config:
    """Returns the config.

    Args:
      word_vectors: path of a vocabulary, such as glove.6B.300d.txt, which the original reads; None
        gives each class its row of conditional probabilities.
    """
    return config.Config(
        data=config.DataConfig(
            reader=part(voc, root="data/VOC2007", class_names=VOC_CLASSES),
            train_split="trainval",
            eval_split="test",
            preprocessing=config.Preprocessing(
                image_size=448, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
            ),
            crop=part(multi_scale_crop, size=448),
            augment=(part(horizontal_flip),),
            batch_size=16,
            eval_batch_size=32,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.resnet101),
            head=part(MLGCN, graph=part("label_graph", word_vectors=word_vectors)),
            init_from="checkpoints/resnet101",
        ),
        # Without focus and clip it is binary cross-entropy, the mean over classes and images.
        losses=(
            loss(
                asymmetric_loss,
                gamma_neg=0.0,
                gamma_pos=0.0,
                clip=None,
                reduction="mean",
                weight=1 / 20,
            ),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=0.1,
            algorithm=part(torch_sgd, momentum=0.9, weight_decay=1e-4),
            groups=(config.ParameterGroup(pattern="backbone.*", rate_factor=0.1),),
            clip_norm=10.0,
        ),
        schedule=part(constant),
        train=config.TrainConfig(epochs=20),
        eval=config.EvalConfig(threshold=0.5),
    )
