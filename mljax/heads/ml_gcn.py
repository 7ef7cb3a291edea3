"""ML-GCN: the classifier of each class is the output of a graph over the classes."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.config.part import Part, resolved
from mljax.data.records import Classes
from mljax.heads.label_graph import LABEL_GRAPH, with_stored
from mljax.layers.dense import check_scale, cosines, scaled
from mljax.layers.variables import Frozen


class MLGCN(nnx.Module):
    """Global pooling, then one weight vector of each class that a graph computes; no bias.

    No image changes the weight vectors, so `folded` leaves a constant.

    Chen et al., "Multi-Label Image Recognition with Graph Convolutional Networks",
    https://arxiv.org/abs/1904.03582; megvii-research/ML-GCN models.py, `GCNResnet`; with a scale
    tosfaq/deep-object-reid (branch kp/gcn_am) torchreid/models/gcn.py.

    Differs from the reference: the maximum is over the whole map, whatever its size. There it is
    over the first 14 x 14 pixels, which are all of them at 448 pixels only.

    Args:
      scale: where it is given, the logits are scale * cosine of pooled features and weight vectors,
        as AAM has it; above 0.
      pooling: over space: `max`, `average` or `average_plus_max`.
      graph: a `label_graph`.
      hidden_features: width between the layers of the graph; None takes half of `num_features`.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        scale: float | None = None,
        pooling: Part = Part(name="max"),  # noqa: B008
        graph: Part = LABEL_GRAPH,
        hidden_features: int | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        del dtype  # What is not in the backbone is small.
        resolved(pooling, "pooling")
        self.pooling = pooling
        self.scale = None if scale is None else check_scale(scale)
        sizes = (hidden_features or num_features // 2, num_features)
        self.graph_part = graph
        self.graph = nnx.data(resolved(graph, "label graph")(num_classes, sizes, rngs=rngs))
        self.classifiers = nnx.data(None)

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `logits` `[b, k]`; with a scale also `cosines` `[b, k]` and `scale`."""
        pooled = resolved(self.pooling, "pooling")(features)
        constant = self.classifiers
        classifiers = self.graph(rngs=rngs) if constant is None else constant[...]
        if self.scale is None:
            return {"logits": jnp.matmul(pooled, classifiers.T)}
        return scaled(cosines(pooled, classifiers.T), self.scale)

    @property
    def stored_arguments(self) -> dict[str, Any]:
        """The arguments that make the head again without the files that it was made from."""
        return {"graph": with_stored(self.graph_part, self.graph)}

    def for_classes(self, classes: Classes) -> "MLGCN":
        """Returns the head for the classes, sharing its parameters; see `LabelGraph`."""
        head = nnx.clone(self, variables=False)
        head.graph = self.graph.for_classes(classes)
        return head

    def folded(self) -> "MLGCN":
        """Returns the head with its weight vectors as a constant, without the graph."""
        head = nnx.clone(self, variables=False)
        head.classifiers, head.graph = Frozen(self.graph()), None
        return head
