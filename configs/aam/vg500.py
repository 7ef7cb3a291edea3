"""AAM's training strategy on VG500: EfficientNetV2 or TResNet-L, any head, AAM or ASL.

Prokofiev and Sovrasov, "Combining Metric Learning and Attention Heads for Accurate and Efficient
Multilabel Image Classification", https://arxiv.org/abs/2209.06585; tosfaq/deep-object-reid (branch
multilabel-paper). Sharpness-aware SGD without decay of biases, one cycle, averaged weights, early
stopping. It ran in half precision; here the computation is bfloat16. The original resizes by
OpenCV, without antialiasing.

    python -m converters.convert tf_efficientnetv2_s_in21ft1k.pth checkpoints/efficientnet_v2_s
    python -m mljax.train --config aam/vg500 --workdir runs/aam_vg500
    python -m mljax.calibrate --checkpoint runs/aam_vg500

The paper starts from weights of OpenImages; without them its ASL has 0.2 to 0.3 less. TResNet-L
starts from ML-Decoder's release, tresnet_l_pretrain_ml_decoder.pth, as checkpoints/tresnet_l_v2.

Expects data/vg500/{train,test}_list_500.txt, vg_category_500_labels_index.json and Visual Genome's
folders of images.

Published mAP at 576 pixels; none of them was run here:

    arguments                 row              V2-s   TResNet-L
    head=linear               ASL              38.84
    head=query2label          Q2L              40.35  42.50 (Q2L's paper, 512 pixels)
    loss=asl                  ML-Decoder       41.20
    (default)                 ML-Decoder, AAM  42.00  43.10
"""

from typing import Literal

from mljax import backbones, config
from mljax.config import loss as loss_term
from mljax.config import part
from mljax.data.augment import cutout, horizontal_flip, randaugment
from mljax.data.readers.vg500 import vg500
from mljax.heads.cosine import Cosine
from mljax.heads.linear import Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.heads.query2label import Query2Label
from mljax.losses import angular_margin_loss, asymmetric_loss
from mljax.training.gradients import sharpness_aware
from mljax.training.optimizer import no_bias_decay, torch_sgd
from mljax.training.schedules import one_cycle
from mljax.training.stopping import SmoothedImprovement

# Of the cosines; the supplement finds 10 to 20 best for few classes, 20 to 30 for many.
SCALE = 25.0


def get_config(
    backbone: Literal["efficientnet_v2_s", "efficientnet_v2_l", "tresnet_l_v2"] = (
        "efficientnet_v2_s"
    ),
    head: Literal["ml_decoder", "linear", "query2label"] = "ml_decoder",
    loss: Literal["aam", "am", "asl"] | None = None,
    image_size: int = 576,
) -> config.Config:
    """Returns the config.

    Args:
      backbone: the original trains graph heads on EfficientNets alone; here any combine.
      head: what follows it.
      loss: `am` is AAM without focusing; None takes that of the row in the table.
      image_size: the side of the square that images are resized to, in pixels.
    """
    loss = loss or ("aam" if head == "ml_decoder" else "asl")
    # Of the backbone's features, as there.
    width = 2048 if backbone == "tresnet_l_v2" else 1280
    angular = loss != "asl"
    scale = SCALE if angular else None
    chosen = {
        "ml_decoder": part(MLDecoder, scale=scale),
        "linear": part(Cosine, scale=SCALE) if angular else part(Linear),
        "query2label": part(
            Query2Label,
            embedding_size=width,
            feed_forward_size=width,
            learned_slope=True,
            scale=scale,
        ),
    }[head]
    undecayed = ("head.queries", "head.projection.kernel") if head == "query2label" else ()
    term = {
        "aam": loss_term(angular_margin_loss, margin=0.0, present_share=0.7, gamma_neg=1.0),
        "am": loss_term(angular_margin_loss, margin=0.0, present_share=0.7),
        "asl": loss_term(
            asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05, differentiable_focus=True
        ),
    }[loss]
    return config.Config(
        data=config.DataConfig(
            reader=part(vg500, root="data/vg500"),
            eval_split="test",
            preprocessing=config.Preprocessing(
                image_size=image_size,
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
                # Without antialiasing.
                resize="cv2_bilinear",
            ),
            augment=(
                part(randaugment),
                part(cutout, factor=0.4, probability=0.5),
                part(horizontal_flip),
            ),
            batch_size=84,
            eval_batch_size=128,
        ),
        model=config.ModelConfig(
            backbone=part(backbones.BACKBONES[backbone]),
            head=chosen,
            dtype="bfloat16",
            init_from=f"checkpoints/{backbone}",
        ),
        losses=(term,),
        optimizer=config.OptimizerConfig(
            peak_lr=5e-3 if angular else 1e-4,
            algorithm=part(torch_sgd, momentum=0.9, weight_decay=5e-4),
            groups=no_bias_decay(*undecayed),
        ),
        # The momentum goes with the rate, 0.95 to 0.85 and back.
        schedule=part(
            one_cycle,
            initial_factor=100.0,
            final_factor=1000.0,
            cycle_beta1=False,
            cycle_momentum=True,
        ),
        train=config.TrainConfig(
            epochs=60,
            ema_decay=0.9997,
            gradients=(part(sharpness_aware, rho=0.05),),
            # The rate rises for 12 epochs.
            stop=part(SmoothedImprovement, patience=5, warmup=11),
        ),
        eval=config.EvalConfig(threshold=0.5),
    )
