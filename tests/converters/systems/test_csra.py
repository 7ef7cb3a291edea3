"""CSRA's checkpoints: what they are, both directions, and against torch."""

import numpy as np
import pytest

from converters import from_torch, to_numpy
from converters.verify import verify
from mljax.config import part
from tests import networks
from tests.converters.shapes import detected, shapes_of

TEMPERATURES = (1.0, None)


def _tensors(temperatures=TEMPERATURES):
    model = networks.model(
        backbone=part("resnet18", layers=(1, 1, 1, 1), width=4),
        head=part("csra", temperatures=temperatures, weight=0.5),
        num_classes=3,
        preprocessing=None,
    )
    return to_numpy(model, naming="original")


def test_a_network_verifies_and_comes_back():
    tensors = _tensors()
    assert tensors["classifier.multi_head.1.head.weight"].shape == (3, 32, 1, 1)
    model = from_torch(tensors)
    assert (model.head.temperatures, model.head.weight) == (TEMPERATURES, 0.5)
    assert model.preprocessing.mean == (0, 0, 0)
    result = verify(model, tensors, image_size=64)
    assert result.difference < 1e-5 * result.largest
    assert result.largest > 1e-2
    for name, array in to_numpy(model).items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_arguments_say_what_the_file_cannot():
    kwargs = detected(shapes_of(_tensors()), weight=0.2, temperatures=(3, 99)).head.kwargs
    assert kwargs == {"temperatures": (3.0, None), "weight": 0.2}


def test_another_number_of_heads_needs_its_temperatures():
    tensors = shapes_of(_tensors((1.0, 2.0, 3.0)))
    with pytest.raises(ValueError, match="3 heads, which needs temperatures"):
        detected(tensors)
    with pytest.raises(ValueError, match=r"3 heads, got temperatures \(1, 2\)"):
        detected(tensors, temperatures=(1, 2))
