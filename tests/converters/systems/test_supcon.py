"""SupContrast's checkpoints: whole networks against the published code, names."""

import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_numpy, to_torch
from converters.verify import verify
from mljax import create_model
from mljax.config import Part
from mljax.models.inference import make_apply
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


@pytest.mark.slow
@pytest.mark.parametrize("case", ["resnet18_mlp", "resnet18_linear"])
def test_a_contrastive_network_has_the_projections_of_supcontrast(case):
    model = from_torch(golden.state_dict("supcon_model", case))
    fill = golden.cases("supcon_model")[case]["inputs"]["image"]["fill"]
    images = golden.fill_input(*fill).transpose(0, 2, 3, 1)
    outputs = make_apply(model, ("projections", "pooled"))(images)
    expected = golden.arrays("supcon_model", case)
    np.testing.assert_allclose(outputs["projections"], expected["out"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(outputs["pooled"], expected["encoder_out"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hidden", [True, False])
def test_projection_heads_come_back_as_they_went(hidden):
    model = create_model(
        "resnet18",
        "projection",
        num_classes=0,
        head_kwargs={"size": 5, "hidden": hidden},
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 4, "cifar_stem": True},
        rngs=nnx.Rngs(0),
    )
    tensors = to_torch(model, naming="supcon")
    heads = {name for name in tensors if name.startswith("head.")}
    layers = ("head.0", "head.2") if hidden else ("head",)
    assert heads == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    found = to_numpy(from_torch(tensors), naming="supcon")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], np.asarray(tensor))
    verification = verify(model, tensors, image_size=8)
    assert verification.passed


@pytest.mark.parametrize("missing", ["head.0.weight", "head.2.bias"])
def test_a_missing_tensor_of_a_projection_head_is_named(missing):
    tensors = shapes_of(golden.state_dict("supcon_model", "resnet18_mlp"))
    del tensors[missing]
    with pytest.raises(ValueError, match=missing):
        from_torch(tensors)


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
