r"""A linear probe on any checkpoint: its backbone, frozen in eval mode, and a linear layer.

    python -m mljax.train --config probe --workdir runs/probe
    python -m mljax.train --config probe:init_from=runs/mine --workdir runs/probe
    python -m mljax.train --config probe:init_from=checkpoints/coco_l,data=asl/csv \
        --workdir runs/probe --set data.reader.kwargs.root=photos

Network and preprocessing are those of the checkpoint, and so are the data unless `data` names
another config. Images are not augmented. Without a checkpoint the features are random, which
pre-training should beat. There is no published figure; that of SupCon is in `supcon/cifar`.
"""

from dataclasses import replace
from typing import Literal

from mljax import backbones, config, losses
from mljax.checkpoints.checkpoint import find_model, read_config, read_description
from mljax.config import load_config, loss, part
from mljax.data.readers.digits import digits
from mljax.evaluators import Multilabel, SingleLabel
from mljax.training.optimizer import torch_adam


def get_config(
    init_from: str | None = None,
    data: str | None = None,
    labels: Literal["several", "one"] = "several",
) -> config.Config:
    """Returns the config.

    Args:
      init_from: the checkpoint, or the workdir of a run.
      data: the config whose data set is read in place of the checkpoint's.
      labels: of an image: `several` trains on the binary cross-entropy for the mAP, `one` on that
        of the softmax for top-1.
    """
    backbone = part(backbones.resnet18, layers=(1, 1, 1, 1), width=16)
    found = config.DataConfig(
        reader=part(digits), preprocessing=config.Preprocessing(image_size=32), batch_size=64
    )
    if init_from is not None:
        folder = find_model(init_from)
        description, trained = read_description(folder), read_config(folder)
        backbone = description.spec.backbone
        if trained is None and data is None:
            raise ValueError(f"{init_from} holds no config: name one whose data are read, as data=")
        if trained is not None:
            found = trained.data
    if data is not None:
        found = load_config(data).data
    if init_from is not None and description.preprocessing is not None:
        found = replace(found, preprocessing=description.preprocessing)
    one = labels == "one"
    cross_entropy = losses.single_label_asymmetric_loss if one else losses.asymmetric_loss
    off = {"smoothing": 0.0} if one else {"clip": 0.0}
    return config.Config(
        data=replace(found, crop=None, augment=(), views=1),
        model=config.ModelConfig(backbone=backbone, init_from=init_from, frozen=("backbone",)),
        losses=(loss(cross_entropy, gamma_pos=0.0, gamma_neg=0.0, reduction="mean", **off),),
        optimizer=config.OptimizerConfig(peak_lr=1e-2, algorithm=part(torch_adam)),
        train=config.TrainConfig(epochs=10),
        eval=config.EvalConfig(
            threshold=0.5,
            evaluators=(part(SingleLabel if one else Multilabel),),
            best_by="top1" if one else "mAP",
        ),
    )
