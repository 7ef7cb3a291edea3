import numpy as np
import pytest
import torch

from converters import from_torch
from converters.torch_twin import to_tensors, tresnet_logits
from converters.verify import verify
from tests import golden

SLOPES = {"mini_v2": {"stem_slope": 1e-6, "block_slope": 1e-6}}


def _images(group, case):
    return golden.fill_input(*golden.cases(group)[case]["inputs"]["x"]["fill"])


@pytest.mark.parametrize("case", [*golden.names("tresnet_eval", "mini"), "asl_m_64"])
def test_the_twin_computes_the_logits_of_the_published_networks(case):
    weights = to_tensors(golden.state_dict("tresnet_eval", case))
    images = torch.tensor(_images("tresnet_eval", case))
    logits = tresnet_logits(weights, images, **SLOPES.get(case, {}))
    expected = golden.arrays("tresnet_eval", case)["logits"]
    np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=0)


def test_verify_passes_a_faithful_conversion():
    tensors = golden.state_dict("tresnet_eval", "mini_v2")
    model = from_torch(tensors, **SLOPES["mini_v2"])
    result = verify(model, tensors, image_size=32)
    assert result.passed
    assert result.difference < 1e-5
    assert result.image_size == 32


def test_verify_fails_a_wrong_weight():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    model = from_torch(tensors)
    tensors["body.layer4.0.conv3.1.bias"][:8] += 0.1
    result = verify(model, tensors, image_size=32)
    assert not result.passed


def test_verify_fails_where_a_weight_is_not_a_number():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    tensors["head.fc.bias"][0] = np.nan
    assert not verify(from_torch(tensors), tensors, image_size=32).passed
