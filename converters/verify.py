"""Runs a converted network and its torch twin on the same random images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from converters.kernel_mixture import ENCODER
from mljax.backbones.resnet import ResNet
from mljax.backbones.tresnet import TResNet
from mljax.heads.kernel_mixture import KernelMixture
from mljax.heads.linear import Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.models.classifier import Classifier

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How far apart the two sides are.

    Attributes:
      difference: the largest absolute difference of two logits.
      largest: the largest absolute logit of the torch side.
      image_size: side of the random images, in pixels.
    """

    difference: float
    largest: float
    image_size: int

    @property
    def passed(self) -> bool:
        """Whether they agree to 1e-4, relative to logits that are larger than 1."""
        return self.difference <= TOLERANCE * max(1.0, self.largest)


def verify(
    model: Classifier, tensors: Mapping[str, np.ndarray], *, image_size: int
) -> Verification | None:
    """Compares `model` with torch over the tensors that it was made from.

    Returns:
      None if there is no torch twin of this network.

    Raises:
      ImportError: if torch is not installed.
    """
    zero_shot = isinstance(model.head, MLDecoder) and model.head.zero_shot
    if (
        type(model.backbone) not in (TResNet, ResNet)
        or type(model.head) not in (Linear, MLDecoder, KernelMixture)
        or zero_shot
    ):
        return None
    try:
        import torch
    except ImportError as error:
        raise ImportError("--verify needs torch: pip install 'mljax[torch]'") from error
    images = np.random.default_rng(0).uniform(size=(2, image_size, image_size, 3))
    images = images.astype(np.float32)
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(jax.jit(lambda x: model(x)["logits"])(images))
    with torch.no_grad():
        theirs = _torch_logits(model, tensors, images.transpose(0, 3, 1, 2)).numpy()
    return Verification(
        difference=float(np.abs(ours - theirs).max()),
        largest=float(np.abs(theirs).max()),
        image_size=image_size,
    )


def _torch_logits(
    model: Classifier, tensors: Mapping[str, np.ndarray], images: Float[np.ndarray, "b 3 h w"]
) -> Any:  # noqa: ANN401
    import torch

    from converters import kernel_mixture_twin, ml_decoder_twin, resnet_twin, torch_twin

    weights = torch_twin.to_tensors(tensors)
    kernel_mixture = isinstance(model.head, KernelMixture)
    if kernel_mixture:
        weights = {name.removeprefix(ENCODER): tensor for name, tensor in weights.items()}
    if isinstance(model.backbone, ResNet):
        features, source = resnet_twin.resnet_features(weights, torch.tensor(images)), "fc"
    else:
        slopes = {
            "stem_slope": model.backbone.stem.norm.slope,
            "block_slope": model.backbone.stages[0][0].conv1.norm.slope,
        }
        features = torch_twin.tresnet_features(weights, torch.tensor(images), **slopes)
        source = "head" if isinstance(model.head, MLDecoder) else "head.fc"
    if kernel_mixture:
        return kernel_mixture_twin.kernel_mixture_logits(weights, features)
    if isinstance(model.head, MLDecoder):
        heads = model.head.layer.attention.num_heads
        return ml_decoder_twin.ml_decoder_logits(weights, features, source, num_heads=heads)
    return torch_twin.linear_logits(weights, features, source)
