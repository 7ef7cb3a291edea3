"""MulCon's head: attention blocks that make one embedding of every label, and its classifiers.

Dao et al., "Contrastively Enforcing Distinctiveness for Multi-Label Image Classification",
https://arxiv.org/abs/2107.11626; SonDaoDuy/MulCon models/networks.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.attention import layer_norm
from mljax.layers.dense import normalize
from mljax.layers.init import at_least_float32, normal_init, uniform_init


def _linear(inputs: int, outputs: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=normal_init(0.02), dtype=dtype, rngs=rngs)


class AttentionBlock(nnx.Module):
    """Multi-head attention and a linear layer, each with a residual sum and a layer norm.

    The residual of the attention is the projected query, there is no output projection, and the
    scores are divided by the root of the full width, not of a head's.

    Lee et al., Set Transformer, https://arxiv.org/abs/1810.00825, equations 6 and 7 (MAB);
    `MAB` and `MABMultiLabel` of SonDaoDuy/MulCon models/networks.py.

    Args:
      query_features: of the queries.
      memory_features: of what they read.
      num_features: of the output, a multiple of `num_heads`.
      norms: have the layer norms.

    Raises:
      ValueError: for a number of features that `num_heads` does not divide.
    """

    def __init__(
        self,
        query_features: int,
        memory_features: int,
        num_features: int,
        *,
        num_heads: int,
        norms: bool,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        if num_features % num_heads:
            raise ValueError(
                f"label_attention: {num_features} features are no multiple of {num_heads} heads"
            )
        self.query = _linear(query_features, num_features, dtype, rngs)
        self.key = _linear(memory_features, num_features, dtype, rngs)
        self.value = _linear(memory_features, num_features, dtype, rngs)
        self.out = _linear(num_features, num_features, dtype, rngs)
        self.norm1 = layer_norm(num_features, dtype=dtype, rngs=rngs) if norms else None
        self.norm2 = layer_norm(num_features, dtype=dtype, rngs=rngs) if norms else None
        self.num_heads = num_heads

    def __call__(
        self, queries: Float[Array, "r g q"], memory: Float[Array, "b n m"]
    ) -> tuple[Float[Array, "b g d"], Float[Array, "b heads g n"]]:
        """Returns one vector a query, and how much of each place it reads; the sum over n is 1.

        Queries of one row (r = 1) serve every image.
        """
        projected = self.query(queries)
        query, key, value = (
            x.reshape(*x.shape[:2], self.num_heads, -1)
            for x in (projected, self.key(memory), self.value(memory))
        )
        # Parity: the full width.
        query = query * projected.shape[-1] ** -0.5
        scores = at_least_float32(jnp.einsum("bghd,bnhd->bhgn", query, key))
        weights = jax.nn.softmax(scores, axis=-1)
        read = jnp.einsum("bhgn,bnhd->bghd", weights.astype(value.dtype), value)
        x = projected + read.reshape(*read.shape[:2], -1)
        x = x if self.norm1 is None else self.norm1(x)
        x = x + jax.nn.relu(self.out(x))
        return x if self.norm2 is None else self.norm2(x), weights


class Projection(nnx.Module):
    """Two linear layers with a rectifier between them, whose output has length 1."""

    def __init__(
        self, num_features: int, size: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs
    ) -> None:
        self.hidden = _linear(num_features, num_features, dtype, rngs)
        self.output = _linear(num_features, size, dtype, rngs)

    def __call__(self, x: Float[Array, "b k d"]) -> Float[Array, "b k p"]:
        """Returns the unit vectors, in float32 at least."""
        return normalize(at_least_float32(self.output(jax.nn.relu(self.hidden(x)))))


class LabelAttention(nnx.Module):
    """One embedding of every label in every image, a classifier for each, and their projection.

    Two blocks of attention among the places of the map, one in which a trained query for each label
    reads them, one among the labels. The logit of a label is a linear function of its embedding.
    `label_contrastive_loss` reads the projections.

    Dao et al., https://arxiv.org/abs/2107.11626; SonDaoDuy/MulCon models/networks.py
    (`ISABMultiLabel`) and coco_att_con_stage_two_model.py, where the K classifiers are K networks;
    stage one has no projection, stage two one of 128.

    Differs from the reference: a batch of one image keeps its axis.

    Args:
      embedding_size: of a label, a multiple of `num_heads`.
      num_heads: of every block, which must divide the backbone's features too.
      norms: have layer norms in the blocks.
      projection_size: width of the unit vectors for the contrastive loss; None for none.

    Raises:
      ValueError: for a width that `num_heads` does not divide.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        embedding_size: int = 1024,
        num_heads: int = 4,
        norms: bool = True,
        projection_size: int | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        def block(queries: int, memory: int, size: int) -> AttentionBlock:
            return AttentionBlock(
                queries, memory, size, num_heads=num_heads, norms=norms, dtype=dtype, rngs=rngs
            )

        # Xavier's bound of torch for [1, k, d]: fan-in k * d, fan-out d.
        bound = (6 / (num_classes * embedding_size + embedding_size)) ** 0.5
        shape = (num_classes, embedding_size)
        self.queries = nnx.Param(uniform_init(bound)(rngs.params(), shape))
        self.places1 = block(num_features, num_features, num_features)
        self.places2 = block(num_features, num_features, num_features)
        self.read = block(embedding_size, num_features, embedding_size)
        self.labels = block(embedding_size, embedding_size, embedding_size)
        self.kernel = nnx.Param(normal_init(0.02)(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros((num_classes,)))
        self.projection = (
            None
            if projection_size is None
            else Projection(embedding_size, projection_size, dtype=dtype, rngs=rngs)
        )

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `logits` `[b, k]`, `embeddings` `[b, k, d]`, `attention` `[b, heads, k, h, w]`.

        The attention is what each label reads of the places. With a projection there are also
        `projections` `[b, k, p]` of length 1.
        """
        del rngs
        tokens = features.reshape(features.shape[0], -1, features.shape[-1])
        tokens, _ = self.places1(tokens, tokens)
        tokens, _ = self.places2(tokens, tokens)
        labels, attention = self.read(self.queries[...].astype(tokens.dtype)[None], tokens)
        labels, _ = self.labels(labels, labels)
        kernel = self.kernel[...].astype(labels.dtype)
        logits = at_least_float32(jnp.einsum("bkd,kd->bk", labels, kernel)) + self.bias[...][None]
        attention = attention.reshape(*attention.shape[:3], *features.shape[1:3])
        outputs = {"logits": logits, "embeddings": labels, "attention": attention}
        if self.projection is not None:
            outputs["projections"] = self.projection(labels)
        return outputs
