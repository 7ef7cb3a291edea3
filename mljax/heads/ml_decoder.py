"""ML-Decoder: one decoder layer in which group queries read the feature map.

Ridnik et al., "ML-Decoder: Scalable and Versatile Classification Head",
https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder ml_decoder.py.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.data.files.word_vectors import vector_size, vectors_for, vectors_in_order
from mljax.data.records import Classes
from mljax.layers.attention import Attention, layer_norm, torch_linear
from mljax.layers.dense import check_scale, normalize, scaled
from mljax.layers.init import at_least_float32, normal_init
from mljax.layers.variables import Frozen, OfClasses


class DecoderLayer(nnx.Module):
    """A transformer decoder layer without self-attention, normalized after each residual sum."""

    def __init__(
        self,
        num_features: int,
        num_heads: int,
        feed_forward_size: int,
        *,
        dropout: float,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        def norm() -> nnx.LayerNorm:
            return layer_norm(num_features, dtype=dtype, rngs=rngs)

        self.attention = Attention(num_features, num_heads, dropout=dropout, dtype=dtype, rngs=rngs)
        self.expand = torch_linear(num_features, feed_forward_size, dtype=dtype, rngs=rngs)
        self.reduce = torch_linear(feed_forward_size, num_features, dtype=dtype, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = norm(), norm(), norm()
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self,
        queries: Float[Array, "g d"],
        memory: Float[Array, "b n d"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b g d"]:
        """Returns the decoded queries of every image."""
        # Only dropout makes the queries differ between images; without it one row is enough.
        rows = 1 if self.dropout.deterministic else memory.shape[0]
        x = jnp.broadcast_to(queries[None], (rows, *queries.shape))
        # Parity: the queries are added to themselves, where a decoder has its self-attention.
        x = self.norm1(x + self.dropout(x, rngs=rngs))
        read = self.attention(x, memory, rngs=rngs)
        x = self.norm2(x + self.dropout(read, rngs=rngs))
        hidden = self.dropout(jax.nn.relu(self.expand(x)), rngs=rngs)
        return self.norm3(x + self.dropout(self.reduce(hidden), rngs=rngs))


class MLDecoder(nnx.Module):
    """A group of classes shares one query; each class reads its logit from its group's query.

    With D = ceil(k / num_groups), class c belongs to group c // D. In zero-shot mode every class
    has its own query, made of its word vector, and all share one weight vector: classes without
    training images are scored by `for_classes`.

    Ridnik et al. 2021, section 2 (group decoding; zero-shot learning with word queries),
    https://arxiv.org/abs/2111.12933; Alibaba-MIIL/ML_Decoder ml_decoder.py, `MLDecoder`. Parity: D
    is int(k / num_groups + 0.999), too small where k / num_groups is less than 0.001 above a whole
    number; the original fails in the forward pass then.

    Args:
      num_groups: queries; None takes 100, or one per class if there are fewer.
      embedding_size: width of queries and memory, a multiple of `num_heads`.
      dropout: in [0, 1), active in training.
      scale: AAM's form, where it is given: the logits are scale * (cosine + bias) with the cosine
        of decoded query and weight vector, and the memory passes a LeakyReLU of slope 0.2 in place
        of a ReLU. Above 0; the paper has 17 to 25. Cosine + bias may leave [-1, 1]. Prokofiev and
        Sovrasov 2022, section 3.2, https://arxiv.org/abs/2209.06585; tosfaq/deep-object-reid
        torchreid/models/ml_decoder.py with `am_binary`, whose engine multiplies by the scale.
      train_queries: train the queries, which the published networks keep at their random start.
      word_vectors: `[k, w]`, or the path of an .npy or .npz file that holds it, or of a vocabulary
        such as `glove.6B.300d.txt`, in which `for_classes` finds the classes by their names:
        zero-shot mode. See `mljax.data.files.word_vectors`.
      word_vector_size: w, for zero-shot mode with word vectors that come later, from a checkpoint
        or by `for_classes`; until then the logits are nan.

    Raises:
      ValueError: for groups that cannot hold the classes, an `embedding_size` that `num_heads`
        does not divide, a scale that is not above 0, or word vectors of another number of classes.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        num_groups: int | None = None,
        embedding_size: int = 768,
        num_heads: int = 8,
        feed_forward_size: int = 2048,
        dropout: float = 0.1,
        scale: float | None = None,
        train_queries: bool = False,
        word_vectors: Float[Array | np.ndarray, "k w"] | str | Path | None = None,
        word_vector_size: int | None = None,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.vocabulary: str | None = None
        if isinstance(word_vectors, str | Path):
            path = Path(word_vectors)
            word_vectors = vectors_in_order(path)
            if word_vectors is None:
                self.vocabulary, word_vector_size = str(path), vector_size(path)
        if word_vectors is None and word_vector_size is not None:
            word_vectors = np.full((num_classes, word_vector_size), np.nan, np.float32)
        if word_vectors is None:
            groups, slots = _group_shape(num_classes, num_groups)
            table = normal_init(1.0)(rngs.params(), (groups, embedding_size))
            self.queries = nnx.Param(table) if train_queries else Frozen(table)
        else:
            groups, slots = 1, 1
            self.queries = nnx.data(None)
            self.word_vectors = OfClasses(_word_vectors(word_vectors, num_classes))
            width = self.word_vectors.shape[1]
            self.word_projection = torch_linear(width, embedding_size, dtype=dtype, rngs=rngs)
        self.zero_shot = word_vectors is not None
        self.scale = None if scale is None else check_scale(scale)
        self.num_classes = num_classes
        self.embed = torch_linear(num_features, embedding_size, dtype=dtype, rngs=rngs)
        self.layer = DecoderLayer(
            embedding_size, num_heads, feed_forward_size, dropout=dropout, dtype=dtype, rngs=rngs
        )
        # torch's xavier-normal of a 3-D tensor: its first two axes times the last one.
        std = (2 / (slots * (embedding_size + groups))) ** 0.5
        self.pool = nnx.Param(normal_init(std)(rngs.params(), (groups, embedding_size, slots)))
        self.bias = nnx.Param(jnp.zeros((1 if self.zero_shot else num_classes,)))

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `logits` `[b, k]`; with a scale also `cosines` `[b, k]` and `scale`."""
        tokens = features.reshape(features.shape[0], -1, features.shape[-1])
        memory = self.embed(tokens)
        memory = jax.nn.relu(memory) if self.scale is None else jax.nn.leaky_relu(memory, 0.2)
        decoded = self.layer(self._queries().astype(memory.dtype), memory, rngs=rngs)
        pool = self.pool[...].astype(decoded.dtype)
        if self.scale is not None:
            decoded, pool = normalize(at_least_float32(decoded)), normalize(self.pool[...], 1)
        logits = at_least_float32(jnp.einsum("bgd,gdo->bgo", decoded, pool))
        logits = logits.reshape(logits.shape[0], -1)
        if not self.zero_shot:
            logits = logits[:, : self.bias.shape[0]]
        logits += self.bias[...][None]
        return {"logits": logits} if self.scale is None else scaled(logits, self.scale)

    @property
    def stored_arguments(self) -> dict[str, Any]:
        """The arguments that make the head again without a file of vectors, where it has any."""
        if not self.zero_shot:
            return {}
        return {"word_vectors": None, "word_vector_size": self.word_vectors.shape[1]}

    def for_classes(self, classes: Classes) -> "MLDecoder":
        """Returns the same head, sharing its parameters, for the word vectors of other classes.

        Raises:
          ValueError: for classes with vectors and a head without zero-shot mode, vectors of another
            width, or a class without any.
        """
        vectors = vectors_for(classes, self.vocabulary)
        if vectors is None and len(classes.names) == self.num_classes:
            return self
        if not self.zero_shot:
            raise ValueError(
                "the data have word vectors, which this head cannot read: it was made without "
                "word_vectors or word_vector_size"
            )
        width = self.word_vectors.shape[1]
        shape = None if vectors is None else vectors.shape
        if shape != (len(classes.names), width):
            raise ValueError(f"word vectors: expected [{len(classes.names)}, {width}], got {shape}")
        unknown = np.isnan(np.asarray(vectors)).any(1)
        if unknown.any():
            raise ValueError(
                f"{self.vocabulary or 'the data'}: has no word vector for {unknown.sum()} classes, "
                f"such as {classes.names[unknown.argmax()]!r}, which cannot be scored without one"
            )
        head = nnx.clone(self, variables=False)
        head.word_vectors = OfClasses(jnp.asarray(vectors))
        head.num_classes = len(classes.names)
        return head

    def folded(self) -> "MLDecoder":
        """Returns the head with its queries as a constant, where word vectors make them."""
        if not self.zero_shot:
            return self
        head = nnx.clone(self, variables=False)
        head.queries = Frozen(self._queries())
        return head

    def _queries(self) -> Float[Array, "g d"]:
        if self.queries is None:
            return jax.nn.relu(self.word_projection(self.word_vectors[...]))
        return self.queries[...]


def _group_shape(num_classes: int, num_groups: int | None) -> tuple[int, int]:
    groups = min(100 if num_groups is None else num_groups, num_classes)
    if groups < 1:
        raise ValueError(f"num_groups and num_classes must be at least 1, got {groups}")
    slots = int(num_classes / groups + 0.999)
    if groups * slots < num_classes:
        raise ValueError(
            f"num_groups: {groups} groups of {slots} cannot hold {num_classes} classes (the group "
            f"size is int(classes / groups + 0.999)); take another number of groups"
        )
    return groups, slots


def _word_vectors(
    vectors: Float[Array | np.ndarray, "k w"], num_classes: int
) -> Float[Array, "k w"]:
    if vectors.ndim != 2 or vectors.shape[0] != num_classes:
        raise ValueError(
            f"word_vectors must hold one row for each of {num_classes} classes, got shape "
            f"{vectors.shape}; transpose it if the words are its columns"
        )
    return jnp.asarray(vectors)
