"""Networks from a feature map to logits and whatever else the losses read, as one flat dict."""

from collections.abc import Callable

from flax import nnx

from mljax.config.part import table
from mljax.heads.cosine import Cosine
from mljax.heads.kernel_mixture import KernelMixture
from mljax.heads.linear import Bottleneck, Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.heads.pooled import Pooled
from mljax.heads.projection import Projection

HEADS: dict[str, Callable[..., nnx.Module]] = table(
    "head",
    {
        "linear": Linear,
        "bottleneck": Bottleneck,
        "cosine": Cosine,
        "ml_decoder": MLDecoder,
        "kernel_mixture": KernelMixture,
        "pooled": Pooled,
        "projection": Projection,
    },
)
