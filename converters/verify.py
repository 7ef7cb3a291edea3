"""Runs a converted network and its torch reference on the same random images."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from converters.models import find_system
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
      None if its system has no torch reference for this network.

    Raises:
      ImportError: if torch is not installed.
    """
    system = find_system(tensors)
    if system.logits is None:
        return None
    try:
        import torch
    except ImportError as error:
        raise ImportError("--verify needs torch: pip install 'mljax[torch]'") from error
    images = np.random.default_rng(0).uniform(size=(2, image_size, image_size, 3))
    images = images.astype(np.float32)
    weights = {name: torch.tensor(array) for name, array in tensors.items()}
    with torch.no_grad():
        theirs = system.logits(weights, torch.tensor(images.transpose(0, 3, 1, 2)), model)
    if theirs is None:
        return None
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(jax.jit(lambda x: model(x)["logits"])(images))
    theirs = theirs.numpy()
    return Verification(
        difference=float(np.abs(ours - theirs).max()),
        largest=float(np.abs(theirs).max()),
        image_size=image_size,
    )
