"""Query2Label: a transformer in which one trained query for each class reads the feature map.

Liu et al., "Query2Label: A Simple Transformer Way to Multi-Label Classification",
https://arxiv.org/abs/2107.10834; SlongLiu/query2labels lib/models/{query2label,transformer}.py.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from mljax.layers.attention import Attention, layer_norm, torch_linear
from mljax.layers.dense import check_scale, clip_cosine, normalize, scaled
from mljax.layers.init import (
    at_least_float32,
    normal_init,
    torch_uniform_init,
    xavier_uniform,
)


def sine_positions(
    height: int, width: int, num_features: int, *, normalize: bool = True
) -> Float[np.ndarray, "h w d"]:
    """Returns the sine position table of a map.

    The first half of the features is of the row, the other of the column. Row y (from 1) becomes
    2 pi y / (height + 1e-6) where it is normalized, and columns likewise; feature i of an axis is
    the sine (even i) or cosine (odd i) of that over 10000^(2 (i // 2) / f), f = num_features / 2.

    Carion et al., DETR, https://arxiv.org/abs/2005.12872, section 3.2 of its appendix;
    `PositionEmbeddingSine` of SlongLiu/query2labels lib/models/position_encoding.py.

    Raises:
      ValueError: for a number of features that 4 does not divide: f must be even.
    """
    if num_features % 4:
        raise ValueError(f"positions need a width that is a multiple of 4, got {num_features}")
    half = num_features // 2
    frequency = 10000.0 ** (2 * (np.arange(half) // 2) / half)

    def axis(length: int) -> np.ndarray:
        places = np.arange(1.0, length + 1)
        if normalize:
            places *= 2 * np.pi / (length + 1e-6)
        angles = places[:, None] / frequency
        return np.where(np.arange(half) % 2, np.cos(angles), np.sin(angles))

    table = np.empty((height, width, num_features), np.float32)
    table[..., :half] = axis(height)[:, None]
    table[..., half:] = axis(width)
    return table


class FeedForward(nnx.Module):
    """Two linear layers with a rectifier, or one of a learned slope, between them."""

    def __init__(
        self,
        num_features: int,
        size: int,
        *,
        learned_slope: bool,
        dropout: float,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        def linear(inputs: int, outputs: int) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                kernel_init=xavier_uniform,
                bias_init=torch_uniform_init(inputs),
                dtype=dtype,
                rngs=rngs,
            )

        self.expand = linear(num_features, size)
        self.reduce = linear(size, num_features)
        self.slope = nnx.Param(jnp.full((1,), 0.25, float)) if learned_slope else None
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, x: Float[Array, "b n d"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b n d"]:
        """Returns the output of every token."""
        hidden = self.expand(x)
        slope = 0 if self.slope is None else self.slope[...].astype(hidden.dtype)[None, None]
        hidden = jnp.where(hidden > 0, hidden, hidden * slope)
        return self.reduce(self.dropout(hidden, rngs=rngs))


class TransformerLayer(nnx.Module):
    """Any of self-attention and attention to a memory, then the feed-forward network.

    Each has a residual sum, and a layer norm behind the sum or, with `pre_norm`, before the branch.
    With neither memory nor queries in the call it is an encoder's layer, else a decoder's.
    """

    def __init__(
        self,
        num_features: int,
        num_heads: int,
        feed_forward_size: int,
        *,
        self_attention: bool,
        cross_attention: bool,
        pre_norm: bool,
        learned_slope: bool,
        dropout: float,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        def attention(there: bool) -> Attention | None:
            if not there:
                return None
            return Attention(
                num_features,
                num_heads,
                dropout=dropout,
                out_init=xavier_uniform,
                dtype=dtype,
                rngs=rngs,
            )

        def norm(there: bool = True) -> nnx.LayerNorm | None:
            return layer_norm(num_features, dtype=dtype, rngs=rngs) if there else None

        self.self_attention = attention(self_attention)
        self.self_norm = norm(self_attention)
        self.cross_attention = attention(cross_attention)
        self.cross_norm = norm(cross_attention)
        self.feed_forward = FeedForward(
            num_features,
            feed_forward_size,
            learned_slope=learned_slope,
            dropout=dropout,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = norm()
        self.dropout = nnx.Dropout(dropout)
        self.pre_norm = pre_norm

    def __call__(
        self,
        x: Float[Array, "r n d"],
        positions: Float[Array, "#r n d"],
        memory: Float[Array, "b m d"] | None = None,
        memory_positions: Float[Array, "1 m d"] | None = None,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b n d"]:
        """Returns the tokens after the layer.

        Args:
          x: the tokens.
          positions: added where `x` asks or is asked, not to what is read.
          memory: what the tokens of a decoder read.
          memory_positions: added to the keys of the memory.
          rngs: of the dropout, in training.
        """

        def read_self(y: Float[Array, "r n d"]) -> Float[Array, "r n d"]:
            assert self.self_attention is not None
            return self.self_attention(y + positions, y + positions, y, rngs=rngs)

        def read_memory(y: Float[Array, "r n d"]) -> Float[Array, "b n d"]:
            assert self.cross_attention is not None
            assert memory is not None and memory_positions is not None
            return self.cross_attention(y + positions, memory + memory_positions, memory, rngs=rngs)

        def feed_forward(y: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
            return self.feed_forward(y, rngs=rngs)

        branches = (
            (self.self_norm, read_self),
            (self.cross_norm, read_memory),
            (self.norm, feed_forward),
        )
        for norm, branch in branches:
            if norm is None:
                continue
            change = self.dropout(branch(norm(x) if self.pre_norm else x), rngs=rngs)
            x = x + change if self.pre_norm else norm(x + change)
        return x


class Query2Label(nnx.Module):
    """An encoder over the places of the map, and a decoder whose queries are the classes.

    Places know where they are by `sine_positions`, which are made for the map's own size, so that
    any image size works. Each class has a query and its own weight vector.

    Liu et al. 2021, section 3, https://arxiv.org/abs/2107.10834; SlongLiu/query2labels
    lib/models/query2label.py and transformer.py, whose published networks are the defaults on a
    backbone of 2048 features. "Combining Metric Learning and Attention Heads"
    (https://arxiv.org/abs/2209.06585; tosfaq/deep-object-reid torchreid/models/q2l.py) has
    `embedding_size` and `feed_forward_size` of the backbone's features, and `learned_slope`.

    Differs from the reference:
      - The table of positions is no part of the checkpoint and fits any map; the original's has
        one size and serves no other.
      - `pre_norm` works without self-attention in the decoder, where the original raises.
      - Every parameter is trained unless the config's groups freeze it: tosfaq/deep-object-reid
        leaves the whole transformer out of its optimizer.

    Args:
      embedding_size: width of a 1x1 projection of the map, a multiple of 4 and of `num_heads`; None
        reads the map itself, at the backbone's width.
      num_heads: of every attention.
      feed_forward_size: width between the linear layers of every layer.
      encoder_layers: number of layers over the places; 0 for none.
      decoder_layers: number of layers of the queries.
      self_attention: decoder layers, counted from 0, whose queries also read each other; none in
        the published networks.
      pre_norm: normalize before each branch in place of after its sum; the encoder then ends with a
        norm as the decoder always does.
      scale: above 0, where it is given: the logits are scale times the cosine of the decoded query
        and the class's vector, without bias, for `angular_margin_loss`. tosfaq/deep-object-reid
        fails in the forward pass there.
      learned_slope: of the rectifiers below 0, one a layer, from 0.25 (PReLU); else it is 0.
      dropout: in [0, 1), active in training.

    Raises:
      ValueError: for a width that 4 or `num_heads` does not divide, no decoder layer, a scale
        that is not above 0, or self-attention of a layer that is not there.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        embedding_size: int | None = None,
        num_heads: int = 4,
        feed_forward_size: int = 8192,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        self_attention: Sequence[int] = (),
        pre_norm: bool = False,
        learned_slope: bool = False,
        scale: float | None = None,
        dropout: float = 0.1,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if decoder_layers < 1 or encoder_layers < 0:
            raise ValueError(
                "query2label needs at least 1 decoder layer and 0 encoder layers, got "
                f"{decoder_layers} and {encoder_layers}"
            )
        if not set(self_attention) <= set(range(decoder_layers)):
            raise ValueError(
                f"self_attention: expected decoder layers from 0 to {decoder_layers - 1}, got "
                f"{tuple(self_attention)}"
            )
        size = embedding_size or num_features
        if size % 4:
            raise ValueError(f"embedding_size must be a multiple of 4 (positions), got {size}")

        def layer(self_attention: bool, cross_attention: bool) -> TransformerLayer:
            return TransformerLayer(
                size,
                num_heads,
                feed_forward_size,
                self_attention=self_attention,
                cross_attention=cross_attention,
                pre_norm=pre_norm,
                learned_slope=learned_slope,
                dropout=dropout,
                dtype=dtype,
                rngs=rngs,
            )

        def norm() -> nnx.LayerNorm:
            return layer_norm(size, dtype=dtype, rngs=rngs)

        self.projection = (
            None
            if embedding_size is None
            else torch_linear(num_features, size, dtype=dtype, rngs=rngs)
        )
        self.encoder = nnx.List([layer(True, False) for _ in range(encoder_layers)])
        self.encoder_norm = norm() if pre_norm and encoder_layers else None
        self.decoder = nnx.List([layer(n in self_attention, True) for n in range(decoder_layers)])
        self.decoder_norm = norm()
        self.queries = nnx.Param(normal_init(1.0)(rngs.params(), (num_classes, size)))
        init = torch_uniform_init(size)
        self.kernel = nnx.Param(init(rngs.params(), (num_classes, size)))
        self.scale = None if scale is None else check_scale(scale)
        self.bias = None if scale else nnx.Param(init(rngs.params(), (num_classes,)))

    def __call__(
        self, features: Float[Array, "b h w c"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns `logits` `[b, k]`; with a scale also `cosines` `[b, k]` and `scale`."""
        batch, height, width, _ = features.shape
        memory = features.reshape(batch, height * width, -1)
        if self.projection is not None:
            memory = self.projection(memory)
        size = memory.shape[-1]
        places = jnp.asarray(sine_positions(height, width, size), memory.dtype).reshape(1, -1, size)
        for layer in self.encoder:
            memory = layer(memory, places, rngs=rngs)
        if self.encoder_norm is not None:
            memory = self.encoder_norm(memory)
        queries = self.queries[...].astype(memory.dtype)[None]
        # Only dropout makes the queries differ between images; without it one row is enough.
        rows = 1 if self.decoder[0].dropout.deterministic else batch
        decoded = jnp.zeros((rows, *queries.shape[1:]), memory.dtype)
        for layer in self.decoder:
            decoded = layer(decoded, queries, memory, places, rngs=rngs)
        return self.classify(self.decoder_norm(decoded))

    def classify(self, decoded: Float[Array, "b k d"]) -> dict[str, Array]:
        """Returns the logit of every class from its decoded query, as the whole head does."""
        if self.scale is not None:
            decoded, kernel = normalize(at_least_float32(decoded)), normalize(self.kernel[...])
            cosines = jnp.einsum("bkd,kd->bk", decoded, kernel, precision="highest")
            return scaled(clip_cosine(cosines), self.scale)
        assert self.bias is not None
        kernel = self.kernel[...].astype(decoded.dtype)
        logits = at_least_float32(jnp.einsum("bkd,kd->bk", decoded, kernel))
        return {"logits": logits + self.bias[...][None]}
