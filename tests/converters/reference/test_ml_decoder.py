import numpy as np
import torch

from converters.reference.linear import to_tensors
from converters.reference.ml_decoder import ml_decoder_logits
from converters.reference.tresnet import tresnet_features
from tests import golden


def test_the_reference_computes_the_logits_of_a_published_ml_decoder():
    weights = to_tensors(golden.state_dict("mldecoder_model", "mld_mini"))
    fill = golden.cases("mldecoder_model")["mld_mini"]["inputs"]["x"]["fill"]
    features = tresnet_features(weights, torch.tensor(golden.fill_input(*fill)))
    logits = ml_decoder_logits(weights, features, "head")
    expected = golden.arrays("mldecoder_model", "mld_mini")["logits"]
    np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=0)
