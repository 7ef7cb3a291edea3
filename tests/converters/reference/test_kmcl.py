import numpy as np
import pytest
import torch

from converters.reference.kmcl import kernel_mixture_logits
from converters.reference.linear import to_tensors
from converters.reference.tresnet import tresnet_features
from tests import golden

CASES = golden.names("kmcl_model")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_reference_computes_the_logits_of_the_published_networks(case):
    row, expected = golden.cases("kmcl_model")[case], golden.arrays("kmcl_model", case)
    weights = to_tensors(golden.state_dict("kmcl_model", case))
    body = {name.removeprefix("encoder."): tensor for name, tensor in weights.items()}
    images = torch.tensor(golden.fill_input(*row["inputs"]["image"]["fill"]))
    logits = kernel_mixture_logits(weights, tresnet_features(body, images))
    np.testing.assert_allclose(logits, expected["pi"], atol=1e-4, rtol=0)


def test_the_reference_keeps_the_axis_of_a_batch_of_one():
    shapes = {"downsampler.weight": (6, 512, 1), "downsampler.bias": (6,)}
    shapes |= {"kmm.pi.weight": (3, 6), "kmm.pi.bias": (3,)}
    weights = to_tensors({k: golden.fill(k, shape, "weight") for k, shape in shapes.items()})
    features = torch.tensor(golden.fill_input("features", (2, 512, 3, 3), -1, 1))
    one = kernel_mixture_logits(weights, features[:1])
    np.testing.assert_allclose(one, kernel_mixture_logits(weights, features)[:1], atol=1e-5)
