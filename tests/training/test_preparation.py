"""What a run begins with, and what is compiled before."""

import logging

import jax
import numpy as np
import pytest

from mljax.training.preparation import prepare
from tests import small_configs

# Sum and last value of some arrays of seed 0, as they were drawn at first.
WEIGHTS = {
    "backbone.stem.conv.kernel": (1.3702732, -0.16853315),
    "backbone.stages.2.0.conv3.conv.kernel": (8.7172907, 0.11970906),
    "backbone.stages.2.0.squeeze_excite.expand.bias": (0.40260180, -0.033812109),
    "head.linear.kernel": (-0.33577330, -0.00083342707),
    "head.linear.bias": (-0.095378501, -0.028257125),
}


@pytest.fixture(scope="module")
def state():
    return prepare(small_configs.training_config()).state


@pytest.mark.parametrize("path", WEIGHTS)
def test_weights_of_a_seed_stay_the_same(state, path):
    array = np.asarray(state.params[path], np.float64)
    np.testing.assert_allclose((array.sum(), array.ravel()[-1]), WEIGHTS[path], rtol=1e-6)


def test_other_shapes_compile_nothing_anew(state, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        other = prepare(small_configs.training_config("model.backbone.kwargs.width=11")).state
    assert other.params["backbone.stem.conv.kernel"].shape[-1] == 11
    compiled = [record.getMessage() for record in caplog.records]
    assert [message for message in compiled if message.startswith("Compiling")] == []
