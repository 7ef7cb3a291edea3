"""KMCL's classifier in plain torch over a state dict, written from the published facts.

Importing this module needs torch.

Sajedi et al., https://arxiv.org/abs/2307.03967; mahdihosseini/KMCL Kmcl_Class.py.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def kernel_mixture_logits(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Returns the logits `[b, k]`; the layers of the kernels have no part in them.

    Args:
      weights: the state dict; with a `downsampler` where the covariance is anisotropic.
      features: `[b, c, h, w]`.
    """
    vector = features.mean((2, 3))
    if "downsampler.weight" in weights:
        weight, bias = weights["downsampler.weight"], weights["downsampler.bias"]
        # Not all axes of length 1 are removed, as the original does: a batch may hold one image.
        vector = F.conv1d(vector[:, :, None], weight, bias)[:, :, 0]
    return F.linear(vector, weights["kmm.pi.weight"], weights["kmm.pi.bias"])
