"""MulCon's networks: a folder of files becomes one model, against torch, and comes back."""

import functools

import numpy as np
import pytest
import torch

from converters import from_torch, to_numpy
from converters.files.read_folder import write_folder
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
    tensors = {name: torch.tensor(array) for name, array in _tensors().items()}
    return {path.name for path in write_folder(tensors, folder, when=when)}


def test_files_are_named_as_the_original_loads_them(tmp_path):
    networks = ("E", "A", "C_0", "C_1", "C_2", "P")
    assert _write(tmp_path / "new", "epoch_15") == {f"epoch_15_net_{n}.pth" for n in networks}
    classifier = torch.load(tmp_path / "new/epoch_15_net_C_1.pth")
    assert {name: tuple(x.shape) for name, x in classifier.items()} == {
        "weight": (1, 8),
        "bias": (1,),
    }
    # Their names begin with numbers too, but they are layers of one network.
    assert set(torch.load(tmp_path / "new/epoch_15_net_P.pth")) == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc.weight": torch.zeros(1)}, "fc.weight is of no network"),
        ({"netA.I": np.zeros(1)}, "netA.I is a ndarray, expected a tensor"),
    ],
)
def test_what_is_no_network_is_not_written(tmp_path, tensors, message):
    with pytest.raises(ValueError, match=message):
        write_folder(tensors, tmp_path / "new")
    assert not (tmp_path / "new").exists()


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
