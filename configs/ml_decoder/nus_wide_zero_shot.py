"""TResNet-L (Bottleneck blocks) with zero-shot ML-Decoder on NUS-WIDE: 925 classes, 81 others.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; `train_zsl_nus.py` of Alibaba-MIIL/ML_Decoder. The head's queries
are made of word vectors: training reads those of the training classes, evaluation and the best
network those of the test classes, which no image was labeled with. 448 pixels is the original's
default; its README has 224: `--set data.preprocessing.image_size=224`.

    python -m converters.convert tresnet_l_pretrain_ml_decoder.pth checkpoints/tresnet_l_mldecoder
    python -m mljax.train --config ml_decoder/nus_wide_zero_shot --workdir runs/nus_wide_zero_shot

Expects data/nus_wide_zsl/{data.csv,benchmark_81_v0.json,wordvec_array.npy} and the images that the
table names; `mljax/data/readers/nus_wide_zsl.py` says how to make the last file of
wordvec_array.pth.
Published mAP: 31.1. Not run here.
"""

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.augment import cutout, randaugment
from mljax.data.readers.nus_wide_zsl import nus_wide_zsl
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(nus_wide_zsl, root="data/nus_wide_zsl", word_vectors="wordvec_array.npy"),
            preprocessing=config.Preprocessing(image_size=448),
            augment=(part(cutout, factor=0.5), part(randaugment)),
            batch_size=56,
            eval_batch_size=56,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_l_v2),
            head=part(heads.MLDecoder, word_vector_size=300),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l_mldecoder",
        ),
        losses=(loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05),),
        optimizer=config.OptimizerConfig(
            peak_lr=1e-4, algorithm=part(torch_adam, weight_decay=1e-2)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=40, ema_decay=0.9997),
        eval=config.EvalConfig(threshold=0.75),
    )
