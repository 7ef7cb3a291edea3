import numpy as np
import pytest
import torch
from flax import nnx

from converters.rows import affine, attention, conv_norm, norm
from converters.table import export_tensors, import_tensors, pointwise
from mljax.layers.attention import Attention


def _random(module):
    rng = np.random.default_rng(0)
    state = module.state_dict().items()
    return {k: rng.normal(size=v.shape).astype(np.float32) for k, v in state}


@pytest.mark.parametrize(
    ("table", "source", "target"),
    [
        (
            affine("a", "a"),
            torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4)}),
            lambda rngs: nnx.Linear(3, 4, rngs=rngs),
        ),
        (
            affine("a", "a", pointwise),
            torch.nn.ModuleDict({"a": torch.nn.Conv2d(3, 4, 1)}),
            lambda rngs: nnx.Linear(3, 4, rngs=rngs),
        ),
        (
            norm("a", "a"),
            torch.nn.ModuleDict({"a": torch.nn.LayerNorm(6)}),
            lambda rngs: nnx.LayerNorm(6, rngs=rngs),
        ),
        (
            attention("a", "a"),
            torch.nn.ModuleDict({"a": torch.nn.MultiheadAttention(8, 2)}),
            lambda rngs: Attention(8, 2, dropout=0.0, dtype=None, rngs=rngs),
        ),
        (
            conv_norm("a.0", "a.1", "a"),
            torch.nn.ModuleDict(
                {
                    "a": torch.nn.Sequential(
                        torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(3)
                    )
                }
            ),
            lambda rngs: nnx.Dict(
                conv=nnx.Conv(2, 3, (3, 3), use_bias=False, rngs=rngs),
                norm=nnx.BatchNorm(3, rngs=rngs),
            ),
        ),
    ],
    ids=["linear", "pointwise", "layer norm", "attention", "conv norm"],
)
def test_the_rows_of_a_layer_take_all_that_torchs_layer_holds(table, source, target):
    network = nnx.eval_shape(lambda: nnx.Dict(a=target(nnx.Rngs(0))))
    tensors = _random(source)
    report = import_tensors(table, tensors, network)
    assert report.mapped + len(report.unused) == len(tensors)
    for name, array in export_tensors(table, network).items():
        np.testing.assert_array_equal(array, tensors[name])
