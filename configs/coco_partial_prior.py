"""Class priors of partially annotated COCO, for coco_partial_csl.py: TResNet-M at 448 pixels.

Ben-Baruch et al., Multi-label Classification with Partial Annotations using Class-aware Selective
Loss, https://arxiv.org/abs/2110.10955: a temporary model learns from the annotated labels alone,
and its mean prediction over the training is the prior. `train.py` of
Alibaba-MIIL/PartialLabelingCSL with `--partial_loss_mode ignore`; the other arguments of that run
are not published, here the loss is cross-entropy.

    python -m converters.convert tresnet_m_miil_21k.pth checkpoints/tresnet_m
    python -m mljax.train --config configs/coco_partial_prior.py --workdir runs/coco_partial_prior

After each epoch the workdir has prior.csv; at the end, where matplotlib is installed, also
prior.png, which compares it with how often each class is annotated. Each class keeps 1,000 present
and 1,000 absent labels (FPC 1000). Labels that are hidden at random (RPS 0.5):

    --set data.reader.kwargs.method=random_per_sample --set data.reader.kwargs.amount=0.5

Expects data/coco/{annotations,train2014,val2014}.
Published mAP of the mode ignore with cross-entropy: 76.46 (FPC 1000), 84.90 (RPS 0.5). Not run
here.
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
                reader="coco",
                reader_kwargs={"root": "data/coco", "year": 2014},
                method="fix_per_class",
                amount=1000,
                legacy=True,
            ),
            preprocessing=Preprocessing(image_size=448),
            augment=(part("cutout", factor=0.5), part("randaugment")),
            batch_size=64,
            eval_batch_size=64,
            num_workers=4,
        ),
        model=ModelConfig(
            backbone=part("tresnet_m"),
            dtype="bfloat16",
            init_from="checkpoints/tresnet_m",
        ),
        losses=(
            LossConfig(
                name="selective_loss",
                kwargs={
                    "mode": "ignore",
                    "gamma_pos": 0.0,
                    "gamma_neg": 0.0,
                    "gamma_unannotated": 0.0,
                    "clip": 0.0,
                },
            ),
        ),
        optimizer=OptimizerConfig(peak_lr=2e-4, weight_decay=1e-4),
        schedule=ScheduleConfig(),
        train=TrainConfig(epochs=30, ema_decay=0.9997, estimate_prior=True),
    )
