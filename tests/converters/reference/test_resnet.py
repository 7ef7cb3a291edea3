import numpy as np
import torch

from converters.reference.linear import linear_logits, to_tensors
from converters.reference.resnet import resnet_features
from tests import golden


def test_the_reference_computes_the_logits_of_a_published_resnet():
    weights = to_tensors(golden.state_dict("supcon_model", "resnet50_ce"))
    fill = golden.cases("supcon_model")["resnet50_ce"]["inputs"]["image"]["fill"]
    features = resnet_features(weights, torch.tensor(golden.fill_input(*fill)))
    expected = golden.arrays("supcon_model", "resnet50_ce")["out"]
    np.testing.assert_allclose(linear_logits(weights, features, "fc"), expected, atol=2e-5, rtol=0)
