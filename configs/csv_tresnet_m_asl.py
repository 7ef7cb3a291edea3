r"""TResNet-M with the asymmetric loss on your own images and a CSV of labels.

    python -m mljax.train --config configs/csv_tresnet_m_asl.py --workdir runs/mine \
        --set data.reader.kwargs.root=photos

Expects train.csv and val.csv in that folder, with a header `image,classA,classB,...` and 0 or 1 in
each row (or `image,labels` and names separated by spaces); images are named from there. With
few images, start from converted weights: `--set model.init_from=checkpoints/tresnet_m`. On a CPU,
take csv_small_asl.py.

There is no published figure for data of your own.
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
            preprocessing=Preprocessing(image_size=224),
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=64,
            eval_batch_size=64,
            num_workers=2,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m"),
            dtype="bfloat16",
        ),
        losses=(
            LossConfig(
                name="asymmetric_loss",
                kwargs={"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05},
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=2e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=40, ema_decay=0.997),
    )
