"""Rows that the tables of several systems share: linear layers, convolutions, norms, attention.

Each function returns the table of one layer. Torch's names are right for every network made of
torch's own layers; the targets are those of flax's layers and of `mljax.layers`.
"""

import numpy as np

from converters.table import Arrays, Row, Table, Transform, conv, copy, join, linear, row

COUNTER = "a counter of batches, which nothing reads"


def affine(source: str, target: str, transform: Transform = linear) -> Table:
    """Returns the table of a linear layer, or of a convolution by another transform."""
    return Table(
        (
            row(f"{source}.weight", f"{target}.kernel", transform),
            row(f"{source}.bias", f"{target}.bias", copy),
        )
    )


def norm(source: str, target: str) -> Table:
    """Returns the table of a layer norm."""
    return Table(
        (
            row(f"{source}.weight", f"{target}.scale", copy),
            row(f"{source}.bias", f"{target}.bias", copy),
        )
    )


def conv_norm(conv_source: str, norm_source: str, target: str) -> Table:
    """Returns the table of a convolution without bias and its batch norm."""
    return Table(
        (
            row(f"{conv_source}.weight", f"{target}.conv.kernel", conv),
            row(f"{norm_source}.weight", f"{target}.norm.scale", copy),
            row(f"{norm_source}.bias", f"{target}.norm.bias", copy),
            row(f"{norm_source}.running_mean", f"{target}.norm.mean", copy),
            row(f"{norm_source}.running_var", f"{target}.norm.var", copy),
        ),
        {f"{norm_source}.num_batches_tracked": COUNTER},
    )


def attention(source: str, target: str) -> Table:
    """Returns the table of torch's multi-head attention, which stacks query, key and value."""
    inputs = [f"{target}.{name}" for name in ("query", "key", "value")]
    weights = tuple(f"{path}.kernel" for path in inputs)
    biases = tuple(f"{path}.bias" for path in inputs)
    stacked = Table(
        (
            Row((f"{source}.in_proj_weight",), weights, split_weight),
            Row((f"{source}.in_proj_bias",), biases, split_bias),
        )
    )
    return join(stacked, affine(f"{source}.out_proj", f"{target}.out"))


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
