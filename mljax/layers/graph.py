"""Graphs over the classes: their adjacency, graph convolution and graph attention."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mljax.layers.init import torch_uniform_init


def adjacency(
    probabilities: Float[np.ndarray, "k k"], *, threshold: float, reweight: float
) -> Float[np.ndarray, "k k"]:
    """Returns A, the edges of the graph, from the conditional probabilities of the labels.

    A pair of classes has an edge of 1 where P(j | i) reaches the threshold. With `reweight`, each
    column is scaled so that its edges sum to that, and the identity is added.

    Chen et al., "Multi-Label Image Recognition with Graph Convolutional Networks", equations 7 and
    8, https://arxiv.org/abs/1904.03582; megvii-research/ML-GCN util.py, `gen_A`, which scales the
    columns, where equation 8 scales the rows; tosfaq/deep-object-reid torchreid/models/gcn.py.

    Differs from the reference: nan probabilities, of a class without instances, are no edges, so
    that this class is alone in the graph. There they make all of A nan.

    Args:
      probabilities: P(j | i) in row i.
      threshold: least probability of an edge, in [0, 1]; 0 joins every pair.
      reweight: sum of the edges of a column beside the 1 of the class itself; 0 leaves A binary
        and without identity.
    """
    edges = np.where(np.nan_to_num(probabilities) >= threshold, 1.0, 0.0)
    if not reweight:
        return edges
    return edges * reweight / (edges.sum(0, keepdims=True) + 1e-6) + np.eye(len(edges))


def normalized_adjacency(edges: Float[Array, "k k"]) -> Float[Array, "k k"]:
    """Returns A[j, i] / sqrt(r_i r_j) with the row sums r: transposed, as the original has it.

    megvii-research/ML-GCN util.py, `gen_adj`. A class without edges has row and column 0; there
    they are nan.
    """
    sums = edges.sum(1)
    some = sums != 0
    roots = jnp.where(some, jax.lax.rsqrt(jnp.where(some, sums, 1)), 0)
    return (edges * roots[None, :]).T * roots[None, :]


class GraphConvolution(nnx.Module):
    """Each class takes the weighted sum of a linear layer of its neighbors.

    Kipf and Welling, https://arxiv.org/abs/1609.02907, equation 2; megvii-research/ML-GCN
    models.py, `GraphConvolution`, which starts with U(+-1/sqrt(out)).

    Args:
      use_bias: add one, as the original can but never does; it then has an axis of length 1 more.
    """

    def __init__(
        self, in_features: int, out_features: int, *, use_bias: bool = False, rngs: nnx.Rngs
    ) -> None:
        init = torch_uniform_init(out_features)
        self.kernel = nnx.Param(init(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(init(rngs.params(), (out_features,))) if use_bias else nnx.data(None)

    def __call__(
        self,
        x: Float[Array, "k d"],
        adjacency: Float[Array, "k k"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "k o"]:
        """Returns the convolved features of the classes."""
        del rngs
        y = adjacency @ (x @ self.kernel[...])
        return y if self.bias is None else y + self.bias[...][None]


class GraphAttention(nnx.Module):
    """Each class takes an attention-weighted sum of its neighbors, then an ELU; one head.

    The adjacency says by its sign who is a neighbor; its values have no influence. A class without
    neighbors, so not even itself, attends to all.

    Velickovic et al., "Graph Attention Networks", equations 1 to 4,
    https://arxiv.org/abs/1710.10903; tosfaq/deep-object-reid torchreid/models/gcn.py.

    Args:
      dropout: share of the attention that training drops.
    """

    def __init__(
        self, in_features: int, out_features: int, *, dropout: float = 0.1, rngs: nnx.Rngs
    ) -> None:
        # torch's xavier-uniform with a gain of 1.414.
        init = nnx.initializers.variance_scaling(1.414**2, "fan_avg", "uniform")
        self.kernel = nnx.Param(init(rngs.params(), (in_features, out_features)))
        scores = init(rngs.params(), (2 * out_features, 1))
        self.scores = nnx.Param(scores.reshape(2, out_features))
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self,
        x: Float[Array, "k d"],
        adjacency: Float[Array, "k k"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "k o"]:
        """Returns the attended features of the classes."""
        y = x @ self.kernel[...]
        of_reader, of_read = self.scores[...] @ y.T
        scores = jax.nn.leaky_relu(of_reader[:, None] + of_read[None, :], 0.2)
        # An adjacency of nan, one that is not known yet, makes all nan.
        scores = jnp.where(adjacency > 0, scores, adjacency - 9e15)
        attention = self.dropout(jax.nn.softmax(scores, axis=1), rngs=rngs)
        return jax.nn.elu(attention @ y)
