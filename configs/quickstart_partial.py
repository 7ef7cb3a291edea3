r"""Partial labels on the embedded digits: a miniature TResNet that sees 30% of the labels.

Ben-Baruch et al., Multi-label Classification with Partial Annotations using Class-aware Selective
Loss, https://arxiv.org/abs/2110.10955. Each training label is hidden with probability 0.7; the
validation labels are whole.

    python -m mljax.train --config configs/quickstart_partial.py --workdir runs/partial
    python -m mljax.train --config configs/quickstart_partial.py --workdir runs/partial_ignore \
        --set losses.0.kwargs.mode=ignore

`python -m benchmarks.partial_labels` trains three modes with the same seed and prints one table of
their mAP, in 4 minutes on 2 CPU cores; there is no published figure for this data. Reproduced here
for the seeds 0, 1 and 2:

    ignore     92.47  88.02  92.18  (mean 90.89)
    negative   87.22  86.86  87.42  (mean 87.17)
    selective  94.44  91.80  91.58  (mean 92.61)
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
            reader=part(
                "partial",
                reader="digits",
                reader_kwargs={},
                method="random_per_sample",
                amount=0.7,
            ),
            preprocessing=Preprocessing(image_size=64),
            batch_size=64,
            eval_batch_size=256,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m", layers=(1, 1, 1, 1), width=16),
            dtype="float32",
        ),
        losses=(
            LossConfig(
                name="selective_loss",
                kwargs={
                    "gamma_pos": 0.0,
                    "gamma_neg": 1.0,
                    "gamma_unannotated": 4.0,
                    "mode": "selective",
                    # An image has about 2.3 of the 10 classes; 70% of them are hidden.
                    "likelihood_topk": 2,
                },
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=4e-3, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=6, ema_decay=0.95),
    )
