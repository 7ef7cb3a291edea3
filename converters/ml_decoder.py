"""The ML-Decoder table, for the original names and for timm's.

Original: Alibaba-MIIL/ML_Decoder ml_decoder.py, under `head.` in a TResNet and `fc.` in a ResNet.
timm (huggingface/pytorch-image-models `ml_decoder.py`) holds all but the decoder layer one level
higher, and has no zero-shot mode.
"""

import numpy as np

from converters.table import Arrays, Row, Table, Transform, copy, linear, row
from converters.tresnet import Naming
from mljax.heads.ml_decoder import MLDecoder

_WORDS = "the word vectors come with the data set"


def ml_decoder_table(
    head: MLDecoder, naming: Naming, *, source: str = "head", target: str = "head"
) -> Table:
    """Returns the table of an ML-Decoder head, grouped or zero-shot.

    Args:
      head: tells the mode; it may be abstract.
      naming: of the source.
      source: path of the head in the state dict: `head`, or `fc` in a ResNet.
      target: path of the head in the network.
    """
    outer = source if naming == "timm" else f"{source}.decoder"
    layer = f"{source}.decoder.layers.0"
    rows = [
        row(
            f"{outer}.duplicate_pooling", f"{target}.pool", shared_pool if head.zero_shot else copy
        ),
        row(f"{outer}.duplicate_pooling_bias", f"{target}.bias", copy),
        *_decoder_layer(layer, f"{target}.layer"),
        *_affine(f"{outer}.embed_standart", f"{target}.embed"),
    ]
    if head.zero_shot:
        rows += _affine(f"{source}.wordvec_proj", f"{target}.word_projection")
        return Table(tuple(rows), kept={f"{target}.word_vectors": _WORDS})
    rows.append(row(f"{outer}.query_embed.weight", f"{target}.queries", copy))
    return Table(tuple(rows))


def _decoder_layer(source: str, target: str) -> list[Row]:
    attention = f"{source}.multihead_attn"
    inputs = [f"{target}.attention.{name}" for name in ("query", "key", "value")]
    norms = [_norm(f"{source}.norm{n}", f"{target}.norm{n}") for n in (1, 2, 3)]
    return [
        *norms[0],
        Row((f"{attention}.in_proj_weight",), _each(inputs, "kernel"), split_weight),
        Row((f"{attention}.in_proj_bias",), _each(inputs, "bias"), split_bias),
        *_affine(f"{attention}.out_proj", f"{target}.attention.out"),
        *_affine(f"{source}.linear1", f"{target}.expand"),
        *_affine(f"{source}.linear2", f"{target}.reduce"),
        *norms[1],
        *norms[2],
    ]


def _each(paths: list[str], leaf: str) -> tuple[str, ...]:
    return tuple(f"{path}.{leaf}" for path in paths)


def _affine(source: str, target: str) -> list[Row]:
    return [
        row(f"{source}.weight", f"{target}.kernel", linear),
        row(f"{source}.bias", f"{target}.bias", copy),
    ]


def _norm(source: str, target: str) -> list[Row]:
    return [
        row(f"{source}.weight", f"{target}.scale", copy),
        row(f"{source}.bias", f"{target}.bias", copy),
    ]


def _split_weight(stacked: np.ndarray) -> Arrays:
    return tuple(part.T for part in np.split(stacked, 3))


def _stack_weight(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Arrays:
    return (np.concatenate([query.T, key.T, value.T]),)


def _split_bias(stacked: np.ndarray) -> Arrays:
    return tuple(np.split(stacked, 3))


def _stack_bias(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Arrays:
    return (np.concatenate([query, key, value]),)


split_weight = Transform("split_weight", _split_weight, _stack_weight)
split_bias = Transform("split_bias", _split_bias, _stack_bias)
# Zero-shot heads share one weight vector [d, 1], which is a pool of one group here.
shared_pool = Transform("shared_pool", lambda pool: (pool[None],), lambda pool: (pool[0],))
