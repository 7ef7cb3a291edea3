r"""A small TResNet with the asymmetric loss on your own images, from scratch, on a CPU.

    python -m mljax.train --config configs/csv_small_asl.py --workdir runs/small \
        --set data.reader.kwargs.root=photos

The folder is the one that csv_tresnet_m_asl.py expects. The original torch code with these settings
reaches mAP 86.7 to 87.2 (two seeds) on the 299 validation photos of the MIML scene set (1,209 to
train, 5 classes). Measured here with seed 0: 86.7 after the last epoch, 87.0 in the best one, in 11
minutes on two CPU cores.
"""

from mljax.config.schema import (
    Config,
    DataConfig,
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
            reader=part("csv", root="data/photos"),
            preprocessing=Preprocessing(image_size=96),
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=32,
            eval_batch_size=32,
            num_workers=0,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m", layers=(1, 2, 3, 1), width=32),
            dtype="float32",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05},
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=1e-3, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=40, ema_decay=0.997),
    )
