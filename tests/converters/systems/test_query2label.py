"""Query2Label's checkpoints: whole networks against the published code, names, both directions."""

import functools

import numpy as np
import pytest

from converters import from_torch, to_numpy
from converters.verify import verify
from mljax import create_model
from mljax.config import Part, Preprocessing
from tests import golden
from tests.converters.shapes import detected, golden_shapes, shapes_of
from tests.networks import initialized
from tests.converters.small_resnet import logits

HEAD = {"embedding_size": 8, "num_heads": 2, "feed_forward_size": 12, "decoder_layers": 1}


@pytest.mark.slow
@pytest.mark.parametrize("case", golden.names("q2l_model"))
def test_the_published_networks_have_the_logits_of_the_reference(case):
    model = from_torch(golden.state_dict("q2l_model", case))
    images = golden.fill_input(*golden.cases("q2l_model")[case]["inputs"]["img"]["fill"])
    expected = golden.arrays("q2l_model", case)["logits"]
    np.testing.assert_allclose(logits(model, images.transpose(0, 2, 3, 1)), expected, atol=1e-4)
