"""AAM's graph branch: channels weighted by a graph over the classes, before any other head."""

from typing import Any

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.config.part import Part, resolved
from mljax.data.records import Classes
from mljax.heads.label_graph import LABEL_GRAPH, with_stored
from mljax.layers.pooling import first_max
from mljax.layers.variables import Frozen


class GraphReweighting(nnx.Module):
    """Multiplies the channels of the map by weights from a graph, then applies another head.

    The weight of a channel is the sigmoid of its largest value over the classes, after the graph
    and a LeakyReLU of slope 0.2. No image changes it, so `folded` leaves a constant.

    Prokofiev and Sovrasov 2022, section 3.3, https://arxiv.org/abs/2209.06585;
    tosfaq/deep-object-reid torchreid/models/gcn.py, `Image_GCNN`.

    Differs from the reference: any head may follow, ML-Decoder too, on any backbone; there it is a
    cosine or linear one on an EfficientNet or ResNet. The graph computes in float32 at least.

    Args:
      head: what follows; `cosine` and `linear` take a `pooling`.
      graph: a `label_graph`, such as `part("label_graph", layer=part("graph_attention"))`. The
        paper has attention; the default of the original's settings is convolution.
      hidden_features: width between the layers of the graph; None takes `num_features`.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        head: Part = Part(name="cosine"),  # noqa: B008
        graph: Part = LABEL_GRAPH,
        hidden_features: int | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = (hidden_features or num_features, num_features)
        self.graph_part, self.head_part = graph, head
        self.graph = nnx.data(resolved(graph, "label graph")(num_classes, sizes, rngs=rngs))
        self.weights = nnx.data(None)
        make_head = resolved(head, "head")
        self.head: Any = make_head(num_features, num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns what the head that follows returns."""
        weights = self._channel_weights(rngs) if self.weights is None else self.weights[...]
        return self.head(features * weights[None, None, None].astype(features.dtype), rngs=rngs)

    def _channel_weights(self, rngs: nnx.Rngs | None = None) -> Float[Array, " c"]:
        x = jax.nn.leaky_relu(self.graph(rngs=rngs), 0.2)
        return jax.nn.sigmoid(first_max(x, 0))

    @property
    def stored_arguments(self) -> dict[str, Any]:
        """The arguments that make the head again without the files that it was made from."""
        return {
            "graph": with_stored(self.graph_part, self.graph),
            "head": with_stored(self.head_part, self.head),
        }

    def for_classes(self, classes: Classes) -> "GraphReweighting":
        """Returns the head for the classes, sharing its parameters; see `LabelGraph`."""
        head = nnx.clone(self, variables=False)
        head.graph = self.graph.for_classes(classes)
        if hasattr(self.head, "for_classes"):
            head.head = self.head.for_classes(classes)
        return head

    def folded(self) -> "GraphReweighting":
        """Returns the head with the weights of its channels as a constant, without the graph."""
        head = nnx.clone(self, variables=False)
        head.weights, head.graph = Frozen(self._channel_weights()), None
        return head
