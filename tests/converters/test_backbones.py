"""Files without classifier: what they become, and what trainings take of them."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_numpy
from converters.convert import main
from mljax import create_model
from mljax.checkpoints.checkpoint import load_model
from mljax.training.initialize import initialize_from
from tests import golden
from tests.converters.small_resnet import small


def _backbone(naming="original"):
    tensors = to_numpy(small(), naming=naming)
    return {name: array for name, array in tensors.items() if not name.startswith("fc.")}


def _save(tensors, path):
    torch.save({name: torch.tensor(array) for name, array in tensors.items()}, path)
    return str(path)


@pytest.mark.parametrize("naming", ["original", "supcon"])
def test_a_backbone_comes_back_as_it_was(naming):
    tensors = _backbone(naming)
    model = from_torch(tensors)
    assert (model.spec.head.name, model.spec.num_classes) == ("pooled", 0)
    exported = to_numpy(model)
    assert list(exported) == list(tensors)
    for name, array in exported.items():
        np.testing.assert_array_equal(array, tensors[name])


def test_a_backbone_of_a_tresnet_keeps_its_arrays():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    body = {name: array for name, array in tensors.items() if name.startswith("body.")}
    np.testing.assert_array_equal(
        from_torch(body).backbone.stem.conv.kernel[...],
        from_torch(tensors).backbone.stem.conv.kernel[...],
    )


def test_the_command_writes_a_verified_backbone_that_starts_a_training(tmp_path, capsys):
    source = _save(_backbone(), tmp_path / "pretrained.pth")
    output = tmp_path / "out"
    assert main([source, str(output), "--verify", "--image-size", "32"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no classifier in the file: a backbone for model.init_from" in said
    assert "class names none, since there is no classifier" in said
    assert "largest difference of a feature from torch" in said
    assert "model.init_from" in (output / "README.md").read_text()
    assert load_model(output)(jnp.zeros((1, 32, 32, 3)))["pooled"].shape == (1, 32)
    fresh = create_model(
        "resnet18",
        num_classes=5,
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 4},
        rngs=nnx.Rngs(1),
    )
    head = np.asarray(fresh.head.linear.kernel[...])
    started, text = initialize_from(fresh, output)
    assert text == f"backbone; the head is fresh, from {output}"
    assert started.naming == "original"
    np.testing.assert_array_equal(started.head.linear.kernel[...], head)
    np.testing.assert_array_equal(
        started.backbone.stem.conv.kernel[...], small().backbone.stem.conv.kernel[...]
    )


def test_layers_of_another_head_are_named_as_left_out(tmp_path, capsys):
    tensors = {f"backbone.{name}": array for name, array in _backbone().items()}
    tensors["classifier.weight"] = np.ones((3, 32), np.float32)
    source = _save(tensors, tmp_path / "x.pth")
    assert main([source, str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 (outside `backbone.`, so not the network's), such as classifier.weight" in said


def test_a_backbone_has_no_logits_to_classify_by():
    with pytest.raises(ValueError, match="the head pooled has no classifier.*num_classes 5"):
        create_model("resnet18", "pooled", num_classes=5, rngs=nnx.Rngs(1))


def test_class_names_of_what_was_cut_off_are_passed_over():
    model = from_torch({"model": _backbone(), "classes": ["a", "b", "c"]})
    assert model.class_names is None
