"""Which tensors of a training framework's file are the network's, and what is said of the rest."""

import numpy as np
import pytest
import torch

from converters import from_torch, to_numpy
from converters.files.read_torch import read_torch
from converters.networks import take_network
from tests.converters.small_resnet import small


def _weights(prefix="", naming="original"):
    return {f"{prefix}{k}": v for k, v in to_numpy(small(), naming=naming).items()}


def _taken(source, **arguments):
    return take_network(read_torch(source, **arguments))


def _check_names(file, naming="original"):
    assert list(file.tensors) == list(_weights(naming=naming))


@pytest.mark.parametrize(
    "prefix",
    [
        *("model.", "net.", "module.model.", "_orig_mod.module.", "model._orig_mod.", "a.b.c."),
        *("module.module.", "model.encoder.", "encoder.", "_forward_module.module.backbone."),
    ],
)
def test_the_levels_before_the_network_are_stripped(prefix):
    file = _taken({"state_dict": _weights(prefix)})
    _check_names(file)
    assert file.left_out == {}


def test_the_prefix_that_is_a_part_of_the_names_stays():
    file = _taken(_weights("model.", naming="supcon"))
    _check_names(file, naming="supcon")
    assert "`model.` stripped" in file.container


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("criterion.pos_weight", "a loss or a metric"),
        ("loss_fn.prior", "a loss or a metric"),
        ("val_map.detections.0", "a loss or a metric"),
        ("train_metrics.f1.tp", "a loss or a metric"),
        ("pos_weight", "a loss or a metric"),
        ("perceptual_loss.net.layer1.0.conv1.weight", "a loss or a metric"),
        ("accuracy.tp", "outside `model.`"),
        ("projector.0.weight", "outside `model.`"),
    ],
)
def test_what_is_not_the_networks_is_left_out_with_a_reason(name, reason):
    file = _taken({"state_dict": _weights("model.") | {name: np.ones(3, np.float32)}})
    _check_names(file)
    assert list(file.left_out) == [name]
    assert reason in file.left_out[name]


def test_the_state_of_a_loss_beside_names_without_prefix_is_left_out():
    file = _taken(_weights() | {"criterion.pos_weight": np.ones(3, np.float32)})
    _check_names(file)
    assert list(file.left_out) == ["criterion.pos_weight"]


def test_a_stray_layer_inside_the_network_stays_an_error():
    with pytest.raises(ValueError, match="extra: layer1.7.odd"):
        from_torch(_weights("model.") | {"model.layer1.7.odd": np.ones(3, np.float32)})


@pytest.mark.parametrize(
    ("plain", "copy"), [("model.", "model_ema."), ("", "ema."), ("net.", "a.swa.")]
)
def test_an_averaged_copy_in_one_state_dict_is_told_with_its_prefix(plain, copy):
    counter = {f"{copy}n_averaged": np.int64(3)}
    averaged = {f"{copy}module.{name}": 2 * array for name, array in _weights().items()}
    file = _taken(_weights(plain) | averaged | counter)
    _check_names(file)
    np.testing.assert_array_equal(file.tensors["fc.bias"], _weights()["fc.bias"])
    assert file.alternatives == (f"averaged weights under {copy!r} (--prefix {copy})",)
    other = _taken(_weights(plain) | averaged | counter, prefix=copy)
    _check_names(other)
    np.testing.assert_array_equal(other.tensors["fc.bias"], 2 * _weights()["fc.bias"])


def test_several_networks_ask_for_the_prefix():
    source = _weights("student.") | _weights("teacher.")
    with pytest.raises(ValueError, match="under 'student.' and 'teacher.'; choose one by --prefix"):
        from_torch(source)
    assert from_torch(source, prefix="teacher").spec.num_classes == 3


def test_python_warns_of_averaged_weights_that_it_does_not_take():
    source = {"model": _weights(), "model_ema": _weights("module.")}
    with pytest.warns(UserWarning, match="averaged weights under 'model_ema'"):
        from_torch(source)
    from_torch(source, key="model")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool])
def test_weights_that_are_no_real_numbers_are_refused_by_name(dtype):
    source = {name: torch.tensor(array) for name, array in _weights().items()}
    source["fc.weight"] = source["fc.weight"].to(dtype)
    with pytest.raises(ValueError, match=f"no real numbers: fc.weight is {str(dtype)[6:]}"):
        from_torch(source)


def test_weights_beyond_float32_are_refused_by_name():
    source = _weights() | {"fc.bias": np.array([1e300, 0, 0])}
    with pytest.raises(ValueError, match="not finite: fc.bias"):
        from_torch(source)
