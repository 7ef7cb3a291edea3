"""Networks from a feature map to logits and whatever else the losses read, as one flat dict."""

from collections.abc import Callable

from flax import nnx

from mljax.config.part import table
from mljax.heads.cosine import Cosine
from mljax.heads.csra import CSRA
from mljax.heads.graph_reweighting import GraphReweighting
from mljax.heads.kernel_mixture import KernelMixture
from mljax.heads.label_attention import LabelAttention
from mljax.heads.label_graph import LabelGraph
from mljax.heads.linear import Bottleneck, Linear
from mljax.heads.ml_decoder import MLDecoder
from mljax.heads.ml_gcn import MLGCN
from mljax.heads.pooled import Pooled
from mljax.heads.projection import Projection
from mljax.heads.query2label import Query2Label

HEADS: dict[str, Callable[..., nnx.Module]] = table(
    "head",
    {
        "linear": Linear,
        "bottleneck": Bottleneck,
        "cosine": Cosine,
        "ml_decoder": MLDecoder,
        "graph_reweighting": GraphReweighting,
        "ml_gcn": MLGCN,
        "query2label": Query2Label,
        "csra": CSRA,
        "label_attention": LabelAttention,
        "kernel_mixture": KernelMixture,
        "pooled": Pooled,
        "projection": Projection,
    },
)
LABEL_GRAPHS: dict[str, Callable[..., nnx.Module]] = table(
    "label graph", {"label_graph": LabelGraph}
)
