"""The KMCL table.

mahdihosseini/KMCL Kmcl_Class.py holds a TResNet under `encoder.`, the reduction of an anisotropic
head as `downsampler` and the three layers of the head under `kmm.`.
"""

import numpy as np

from converters.table import Arrays, Row, Table, Transform, copy, linear, row
from converters.tresnet import Naming
from mljax.heads.kernel_mixture import KernelMixture

# What precedes the names of the backbone.
ENCODER = "encoder."

_CLASSIFIER = "the encoder's own classifier, which KMCL never trains nor uses; exported as zeros"


def kernel_mixture_table(head: KernelMixture, naming: Naming, *, target: str = "head") -> Table:
    """Returns the table of a KMCL head.

    The encoder's own classifier is left out on import. The original loads no state dict without
    it, so an export has it, as zeros: no output depends on it.

    Args:
      head: tells which layers there are; it may be abstract.
      naming: `original`; timm has no such head.
      target: path of the head in the network.

    Raises:
      ValueError: for the names of timm.
    """
    if naming != "original":
        raise ValueError(f"KMCL networks have original names only, got naming={naming!r}")
    reduction = head.down_sampler
    num_features = (reduction or head.pi).in_features
    fillers = {
        f"{ENCODER}head.fc.weight": (head.pi.out_features, num_features),
        f"{ENCODER}head.fc.bias": (head.pi.out_features,),
    }
    rows = [Row((name,), (), _zeros(shape)) for name, shape in fillers.items()]
    if reduction is not None:
        rows += _affine("downsampler", f"{target}.down_sampler", pointwise_1d)
    for name in ("pi", "mean", "var"):
        if getattr(head, name) is not None:
            # Both sides order the flat outputs of an anisotropic layer by dimension, then class.
            rows += _affine(f"kmm.{name}", f"{target}.{name}", linear)
    return Table(tuple(rows), unused=dict.fromkeys(fillers, _CLASSIFIER))


def _affine(source: str, target: str, transform: Transform) -> list[Row]:
    return [
        row(f"{source}.weight", f"{target}.kernel", transform),
        row(f"{source}.bias", f"{target}.bias", copy),
    ]


def _zeros(shape: tuple[int, ...]) -> Transform:
    def to_torch() -> Arrays:
        return (np.zeros(shape, np.float32),)

    return Transform("zeros", lambda _: (), to_torch)


# A 1-D convolution over a single position, which is a linear layer here.
pointwise_1d = Transform("pointwise_1d", lambda w: (w[:, :, 0].T,), lambda k: (k.T[:, :, None],))
