r"""The quickstart's network and steps with KMCL's head and losses, on the embedded digits.

    python -m mljax.train --config quickstart_kmcl --workdir runs/quickstart_kmcl
    python -m mljax.evaluate --checkpoint runs/quickstart_kmcl \
        --evaluator kernels:similarity=True --pictures runs/quickstart_kmcl/pictures

mAP on the 1,024 canvases to evaluate, measured here with seeds 0, 1 and 2: 98.9, 97.5, 98.8. With
the asymmetric loss alone (`quickstart`): 99.0, 98.3, 99.2. It takes 104 s of CPU time, compilation
included; `quickstart` 89 s.
"""

from mljax import backbones, config, heads, losses
from mljax.config import loss, part
from mljax.data.readers.digits import digits
from mljax.evaluators import Kernels, Multilabel
from mljax.training.optimizer import torch_adam
from mljax.training.schedules import one_cycle


def get_config() -> config.Config:
    """Returns the config."""
    return config.Config(
        data=config.DataConfig(
            reader=part(digits),
            preprocessing=config.Preprocessing(image_size=64),
            batch_size=64,
            eval_batch_size=256,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.tresnet_m, layers=(1, 1, 1, 1), width=16),
            head=part(heads.KernelMixture, covariance="anisotropic", similarity="bhattacharyya"),
        ),
        losses=(
            loss(losses.asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05, eps=1e-7),
            loss(losses.reconstruction_loss, reduction="mean"),
            loss(losses.kernel_contrastive_loss, reduction="mean"),
        ),
        optimizer=config.OptimizerConfig(
            peak_lr=4e-3, algorithm=part(torch_adam, weight_decay=1e-4)
        ),
        schedule=part(one_cycle),
        train=config.TrainConfig(epochs=4, ema_decay=0.95),
        eval=config.EvalConfig(evaluators=(part(Multilabel), part(Kernels))),
    )
