"""AAM's training strategy on NUS-WIDE: EfficientNetV2 or TResNet-L, any head, AAM or ASL.

Prokofiev and Sovrasov, "Combining Metric Learning and Attention Heads for Accurate and Efficient
Multilabel Image Classification", https://arxiv.org/abs/2209.06585; tosfaq/deep-object-reid (branch
multilabel-paper). Sharpness-aware SGD without decay of biases, one cycle, averaged weights, early
stopping. It ran in half precision; here the computation is bfloat16. The original resizes by
OpenCV, without antialiasing.

    python -m converters.convert tf_efficientnetv2_s_in21ft1k.pth checkpoints/efficientnet_v2_s
    python -m mljax.train --config aam/nus_wide --workdir runs/aam_nus_wide
    python -m mljax.calibrate --checkpoint runs/aam_nus_wide

The paper starts from weights of OpenImages; without them its ASL has 0.2 to 0.3 less. TResNet-L
starts from ML-Decoder's release, tresnet_l_pretrain_ml_decoder.pth, as checkpoints/tresnet_l_v2.

Expects data/nus_wide/{train,val}.json and the images that they name, as that code ships them: ASL's
division into 119,103 and 50,720 images.

Published mAP at 448 pixels; none of them was run here; the loss of the row GAT is not told:

    arguments                 row              V2-s   TResNet-L
    head=linear               ASL              65.20  65.20 (ASL's paper)
    head=query2label          Q2L              65.79  66.30 (Q2L's paper)
    head=ml_gcn               ML-GCN           66.30
    loss=asl                  ML-Decoder       67.07
    head=graph_reweighting    GAT              66.85  68.10
    (default)                 ML-Decoder, AAM  67.60  68.30
"""

from typing import Literal

from mljax import backbones, config
from mljax.config import loss as loss_term
from mljax.config import part
from mljax.data.augment import cutout, horizontal_flip, randaugment
from mljax.data.readers.json_lists import json_lists
from mljax.heads.cosine import Cosine
from mljax.heads.graph_reweighting import GraphReweighting
from mljax.heads.linear import Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.heads.ml_gcn import MLGCN
from mljax.heads.query2label import Query2Label
from mljax.losses import angular_margin_loss, asymmetric_loss
from mljax.training.gradients import sharpness_aware
from mljax.training.optimizer import no_bias_decay, torch_sgd
from mljax.training.schedules import one_cycle
from mljax.training.stopping import SmoothedImprovement

# Of the cosines; the supplement finds 10 to 20 best for few classes, 20 to 30 for many.
SCALE = 23.0


def get_config(
    backbone: Literal["efficientnet_v2_s", "efficientnet_v2_l", "tresnet_l_v2"] = (
        "efficientnet_v2_s"
    ),
    head: Literal[
        "ml_decoder", "linear", "graph_reweighting", "ml_gcn", "query2label"
    ] = "ml_decoder",
    loss: Literal["aam", "am", "asl"] | None = None,
    image_size: int = 448,
    word_vectors: str | None = None,
) -> config.Config:
    """Returns the config.

    Args:
      backbone: the original trains graph heads on EfficientNets alone; here any combine.
      head: what follows it.
      loss: `am` is AAM without focusing; None takes that of the row in the table.
      image_size: the side of the square that images are resized to, in pixels.
      word_vectors: path of a vocabulary, such as glove.6B.300d.txt, for the graph heads; None gives
        each class its row of conditional probabilities.
    """
    loss = loss or ("aam" if head in ("ml_decoder", "graph_reweighting") else "asl")
    # Of the backbone's features, as there.
    width = 2048 if backbone == "tresnet_l_v2" else 1280
    angular = loss != "asl"
    scale = SCALE if angular else None
    classifier = part(Cosine, scale=SCALE) if angular else part(Linear)
    convolution, attention = (
        part("label_graph", layer=part(layer), word_vectors=word_vectors)
        for layer in ("graph_convolution", "graph_attention")
    )
    # GAT's row sums average and maximum.
    pooled = part(classifier.name, pooling=part("average_plus_max"), **classifier.kwargs)
    chosen = {
        "ml_decoder": part(MLDecoder, scale=scale),
        "linear": classifier,
        "graph_reweighting": part(GraphReweighting, head=pooled, graph=attention),
        "ml_gcn": part(MLGCN, scale=scale, pooling=part("average"), graph=convolution),
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
        "aam": loss_term(
            angular_margin_loss, margin=0.0, present_share=0.7, gamma_neg=2.0, gamma_pos=1.0
        ),
        "am": loss_term(angular_margin_loss, margin=0.0, present_share=0.7),
        "asl": loss_term(
            asymmetric_loss, gamma_neg=4.0, gamma_pos=0.0, clip=0.05, differentiable_focus=True
        ),
    }[loss]
    return config.Config(
        data=config.DataConfig(
            reader=part(json_lists, root="data/nus_wide"),
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
            peak_lr=9e-3 if angular else 1e-4,
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
