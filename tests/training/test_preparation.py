"""What a run begins with, and what is compiled before."""

import hashlib
import logging

import jax
import numpy as np
import pytest

from mljax.training.preparation import prepare
from tests import small_configs

# Begin of the SHA-256 of all arrays of seed 0, as they were drawn at first.
WEIGHTS = "5124d1e9f1e37690"


@pytest.fixture(scope="module")
def state():
    return prepare(small_configs.training_config()).state


def test_weights_of_a_seed_stay_the_same(state):
    found = hashlib.sha256()
    for path, array in sorted((state.params | state.statistics).items()):
        found.update(f"{path} {array.shape} {array.dtype}".encode() + np.asarray(array).tobytes())
    assert found.hexdigest()[:16] == WEIGHTS


def test_other_shapes_compile_nothing_anew(state, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        other = prepare(small_configs.training_config("model.backbone.kwargs.width=12")).state
    assert other.params["backbone.stem.conv.kernel"].shape[-1] == 12
    compiled = [record.getMessage() for record in caplog.records]
    assert [message for message in compiled if message.startswith("Compiling")] == []
