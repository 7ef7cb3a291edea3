import numpy as np
import pytest
import torch

from converters.reference.linear import to_tensors
from converters.reference.tresnet import tresnet_logits
from tests import golden

SLOPES = {"mini_v2": {"stem_slope": 1e-6, "block_slope": 1e-6}}


@pytest.mark.parametrize("case", [*golden.names("tresnet_eval", "mini"), "asl_m_64"])
def test_the_reference_computes_the_logits_of_the_published_networks(case):
    weights = to_tensors(golden.state_dict("tresnet_eval", case))
    images = torch.tensor(
        golden.fill_input(*golden.cases("tresnet_eval")[case]["inputs"]["x"]["fill"])
    )
    logits = tresnet_logits(weights, images, **SLOPES.get(case, {}))
    expected = golden.arrays("tresnet_eval", case)["logits"]
    np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=0)
