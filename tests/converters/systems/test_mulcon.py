"""MulCon's networks: a folder of files becomes one model, against torch, and comes back."""

import functools

import numpy as np
import pytest
import torch

from converters import from_torch, to_numpy
from converters.verify import verify
from mljax.config import part
from tests import networks
from tests.converters.shapes import detected, shapes_of


@functools.cache
def _tensors():
    model = networks.model(
        backbone=part("resnet18", layers=(1, 1, 1, 1), width=4),
        head=part("label_attention", embedding_size=8, num_heads=2, projection_size=6),
        num_classes=3,
        preprocessing=None,
    )
    return to_numpy(model, naming="original")


def _write(folder, when):
    files = {}
    for name, array in _tensors().items():
        network, _, rest = name.partition(".")
        if network == "netC":
            number, _, rest = rest.partition(".")
            network = f"netC_{number}"
        files.setdefault(network.removeprefix("net"), {})[rest] = torch.tensor(array)
    for network, tensors in files.items():
        torch.save(tensors, folder / f"{when}_net_{network}.pth")


def test_a_folder_of_networks_verifies_and_comes_back(tmp_path):
    for when in ("epoch_15", "ema_epoch_15"):
        _write(tmp_path, when)
    with pytest.raises(ValueError, match="choose one of ema_epoch_15, epoch_15 by --key"):
        from_torch(tmp_path)
    model = from_torch(tmp_path, key="ema_epoch_15", num_heads=2)
    assert model.preprocessing.image_size == 448
    tensors = _tensors()
    result = verify(model, tensors, image_size=64)
    assert result.difference < 1e-5 * result.largest
    assert result.largest > 1e-2
    back = to_numpy(model)
    assert back.keys() == tensors.keys()
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_the_names_are_those_of_the_original():
    names = set(_tensors())
    expected = ("netE.0.weight", "netE.7.0.downsample.1.bias", "netA.sab3.mab.ln1.bias", "netA.I")
    assert names.issuperset((*expected, "netC.2.weight", "netP.2.bias"))


def test_stage_one_has_no_projection():
    tensors = {k: v for k, v in shapes_of(_tensors()).items() if not k.startswith("netP")}
    kwargs = detected(tensors).head.kwargs
    assert kwargs == {"embedding_size": 8}


def test_an_empty_folder_raises(tmp_path):
    with pytest.raises(ValueError, match="a folder of networks in files such as"):
        from_torch(tmp_path)
