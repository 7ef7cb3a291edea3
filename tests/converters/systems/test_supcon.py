"""SupContrast's checkpoints: whole networks against the published code, names."""

import numpy as np
import pytest
import torch

from converters import from_torch, to_numpy
from mljax.config import Part
from tests import golden
from tests.converters.shapes import detected, shapes_of
from tests.converters.small_resnet import logits, small


@pytest.mark.slow
def test_a_cross_entropy_network_has_the_logits_of_supcontrast():
    model = from_torch(golden.state_dict("supcon_model", "resnet50_ce"))
    row = golden.cases("supcon_model")["resnet50_ce"]
    images = golden.fill_input(*row["inputs"]["image"]["fill"]).transpose(0, 2, 3, 1)
    expected = golden.arrays("supcon_model", "resnet50_ce")["out"]
    np.testing.assert_allclose(logits(model, images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("case", "backbone"), [("resnet18_mlp", "resnet18"), ("resnet50_ce", "resnet50")]
)
def test_supcontrast_networks_are_told_by_their_names(case, backbone):
    detection = detected(shapes_of(golden.state_dict("supcon_model", case)))
    assert detection.backbone == Part(name=backbone, kwargs={"cifar_stem": True})
    assert detection.naming == "supcon"
    assert detection.preprocessing.image_size == 32


def test_the_statistics_of_cifar_10_are_assumed_for_ten_classes():
    detection = detected(shapes_of(golden.state_dict("supcon_model", "resnet50_ce")))
    assert detection.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    assert "CIFAR-10" in detection.assumption


def test_a_projection_head_is_named_where_it_cannot_be_imported():
    with pytest.raises(ValueError, match=r"resnet18 with CIFAR stem .* projection head"):
        from_torch(shapes_of(golden.state_dict("supcon_model", "resnet18_mlp")))


def test_wrappers_and_counters_of_a_training_run_are_left_out(tmp_path):
    tensors = {}
    for name, array in to_numpy(small(cifar_stem=True), naming="supcon").items():
        wrapped = name.replace("encoder.", "encoder.module.")
        tensors[wrapped] = torch.tensor(array)
        if name.endswith("running_var"):
            counter = wrapped.replace("running_var", "num_batches_tracked")
            tensors[counter] = torch.tensor(7)
    torch.save({"model": tensors, "optimizer": {}, "epoch": 3}, tmp_path / "last.pth")
    model = from_torch(tmp_path / "last.pth")
    assert model.backbone.cifar_stem
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(logits(model, images), logits(small(cifar_stem=True), images))
