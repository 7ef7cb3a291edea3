r"""TResNet-L (Bottleneck blocks) with zero-shot ML-Decoder on NUS-WIDE: 925 classes, 81 others.

Ridnik et al., ML-Decoder: Scalable and Versatile Classification Head,
https://arxiv.org/abs/2111.12933; `train_zsl_nus.py` of Alibaba-MIIL/ML_Decoder. The head's queries
are made of word vectors: training reads those of the training classes, evaluation and the best
network those of the test classes, which no image was labeled with. 448 pixels is the original's
default; its README has 224: `--set data.preprocessing.image_size=224`.

    python -m converters.convert tresnet_l_pretrain_ml_decoder.pth checkpoints/tresnet_l_mldecoder
    python -m mljax.train --config configs/nus_wide_zsl_tresnet_l_mldecoder.py \
        --workdir runs/nus_wide_zsl

Expects data/nus_wide_zsl/{data.csv,benchmark_81_v0.json,wordvec_array.npy} and the images that the
table names; `mljax/data/nus_wide_zsl.py` says how to make the last file of wordvec_array.pth.
Published mAP: 31.1. Not run here.
"""

from mljax.config.schema import (
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    Preprocessing,
    ScheduleConfig,
    TrainConfig,
    part,
)


def get_config() -> Config:
    """Returns the recipe."""
    return Config(
        data=DataConfig(
            reader=part("nus_wide_zsl", root="data/nus_wide_zsl", word_vectors="wordvec_array.npy"),
            preprocessing=Preprocessing(image_size=448),
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=56,
            eval_batch_size=56,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_l_v2"),
            head=part("ml_decoder", word_vector_size=300),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_l_mldecoder",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05},
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=1e-4, weight_decay=1e-2),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=40, ema_decay=0.9997),
        eval=EvalConfig(threshold=0.75),
    )
