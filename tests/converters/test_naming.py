"""Exports under the names that a network came with."""

import json
import sys

import numpy as np
import pytest
import torch

from converters import from_torch, to_numpy, to_torch
from mljax.checkpoints.checkpoint import load_model, read_description, save_model
from mljax.checkpoints.manifest import MANIFEST, seal
from tests import golden
from tests.converters.small_resnet import small


def _tresnet(naming):
    return to_numpy(from_torch(golden.state_dict("tresnet_eval", "mini_64")), naming=naming)


SOURCES = {
    "timm": lambda: _tresnet("timm"),
    "original": lambda: _tresnet("original"),
    "supcon": lambda: to_numpy(small(), naming="supcon"),
    "supcon/original": lambda: _mixed("supcon", "original"),
    "original/timm": lambda: _mixed("original", "timm"),
}


def _mixed(backbone, head):
    body, decoder = (to_numpy(small("ml_decoder"), naming=name) for name in (backbone, head))
    mixed = {name: array for name, array in body.items() if not name.startswith("fc.")}
    return mixed | {name: array for name, array in decoder.items() if name.startswith("fc.")}


@pytest.mark.parametrize("naming", SOURCES)
def test_a_network_is_exported_under_its_own_names_after_saving_and_loading(tmp_path, naming):
    source = SOURCES[naming]()
    save_model(tmp_path / "model", from_torch(source))
    model = load_model(tmp_path / "model")
    assert model.naming == naming
    exported = to_numpy(model)
    assert list(exported) == list(source)
    for name, array in exported.items():
        np.testing.assert_array_equal(array, source[name])


def test_another_naming_can_be_asked_for():
    model = from_torch(SOURCES["timm"]())
    assert "body.conv1.0.weight" in to_torch(model, naming="original")


def test_a_network_of_our_own_has_the_original_names():
    assert small().naming is None
    assert "conv1.weight" in to_torch(small())


def test_a_naming_that_the_new_head_has_not_gives_the_original_one():
    model = small("ml_decoder")
    model = type(model)(model.backbone, model.head, model.spec)
    model.naming = "another"
    assert list(to_numpy(model)) == list(to_numpy(small("ml_decoder")))


def test_a_checkpoint_of_an_older_version_has_no_naming(tmp_path):
    path = save_model(tmp_path / "model", from_torch(SOURCES["timm"]()))
    content = json.loads((path / "model.json").read_text())
    del content["naming"]
    (path / "model.json").write_text(json.dumps(content))
    (path / MANIFEST).unlink()
    seal(path)
    assert read_description(path).naming is None
    assert load_model(path).naming is None


def test_tensors_are_what_torch_loads():
    exported = to_torch(from_torch({f"model.{k}": v for k, v in to_numpy(small()).items()}))
    layer = torch.nn.Linear(32, 3)
    layer.load_state_dict(
        {name.removeprefix("fc."): t for name, t in exported.items() if name.startswith("fc.")}
    )
    assert torch.equal(layer.weight, exported["fc.weight"])


def test_a_state_dict_can_be_changed_without_changing_the_network():
    model = small()
    to_torch(model)["fc.bias"] += 1
    np.testing.assert_array_equal(to_torch(model)["fc.bias"], to_numpy(model)["fc.bias"])


def test_without_torch_the_state_dict_is_of_arrays(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    exported = to_torch(small())
    assert all(isinstance(array, np.ndarray) for array in exported.values())
