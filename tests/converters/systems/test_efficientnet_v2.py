"""EfficientNetV2 checkpoints: names, both directions."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_numpy
from converters.models import find_table
from converters.verify import verify
from mljax.config import Part
from mljax.models.classifier import ModelSpec, abstract_model
from tests.converters.shapes import detected, golden_shapes, shapes_of
from tests.converters.small_efficientnet import SMALL, small


@pytest.mark.parametrize(
    ("case", "name"), [("b0_am_k10", "b0"), ("s_train", "s"), ("l_am_k20", "l")]
)
def test_the_published_networks_are_told(case, name):
    tensors = golden_shapes("aam_effnet", case)
    tensors = {n.removeprefix("model."): a for n, a in tensors.items() if "act2" not in n}
    classifier = tensors.pop("classifier.weight").T
    detection = detected({**tensors, "classifier.weight": classifier})
    assert detection.backbone == Part(name=f"efficientnet_v2_{name}")
    assert detection.head == Part(name="linear")
    assert detection.num_classes == len(classifier)
    mean = (0.485, 0.456, 0.406) if name == "b0" else (0.5, 0.5, 0.5)
    assert detection.preprocessing.mean == mean


def test_names_and_order_are_timms():
    spec = ModelSpec(
        backbone=Part(name="efficientnet_v2_b0"), head=Part(name="pooled"), num_classes=0
    )
    sources = [source for row in find_table(abstract_model(spec)).rows for source in row.sources]
    expected = [name.removeprefix("model.") for name in golden_shapes("aam_effnet", "b0_am_k10")]
    assert sources == [
        name for name in expected if name.split(".")[0] not in ("act2", "classifier")
    ]


@pytest.mark.parametrize("head", ["linear", "pooled"])
def test_the_round_trip_is_bit_exact(head):
    model = small(head, num_classes=3 if head == "linear" else 0)
    tensors = to_numpy(model)
    imported = from_torch(tensors)
    assert imported.spec.backbone == Part(name="efficientnet_v2_s", kwargs=SMALL)
    again = to_numpy(imported)
    assert list(again) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(again[name], array, strict=True, err_msg=name)
    for ours, theirs in zip(
        *(jax.tree.leaves(nnx.state(m)) for m in (model, imported)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("arguments", [{}, {"same_padding": False, "norm_eps": 1e-5}])
def test_the_import_equals_the_reference(arguments):
    tensors = {name: torch.tensor(array) for name, array in to_numpy(small()).items()}
    model = from_torch(tensors, **arguments)
    assert model.spec.backbone.kwargs == SMALL | arguments
    found = verify(model, tensors, image_size=37)
    assert found is not None and found.passed


def test_no_single_missing_tensor_changes_the_answer():
    tensors = shapes_of(to_numpy(small()))
    whole = detected(tensors)
    for name in tensors:
        assert detected({k: v for k, v in tensors.items() if k != name}) == whole, name


@pytest.mark.parametrize(
    "name", ["conv_stem.weight", "blocks.3.0.se.conv_expand.bias", "classifier.weight"]
)
def test_a_missing_tensor_raises(name):
    tensors = to_numpy(small())
    del tensors[name]
    with pytest.raises(ValueError, match=f"missing: {name}"):
        from_torch(tensors)


def test_an_extra_and_a_misshapen_tensor_raise():
    tensors = to_numpy(small())
    tensors["blocks.0.0.bn9.weight"] = np.zeros(3, np.float32)
    tensors["blocks.4.1.conv_dw.weight"] = np.zeros((96, 1, 5, 5), np.float32)
    with pytest.raises(ValueError, match="2 problems") as error:
        from_torch(tensors)
    assert "extra: blocks.0.0.bn9.weight" in str(error.value)
    assert "misshapen: blocks.4.1.conv_dw.weight is [96,1,5,5]" in str(error.value)


@pytest.mark.parametrize("prefix", ["blocks.3.", "blocks.5.", "bn1."])
def test_a_cut_down_file_is_refused(prefix):
    tensors = {k: v for k, v in to_numpy(small()).items() if not k.startswith(prefix)}
    with pytest.raises(ValueError, match="the file is cut"):
        from_torch(tensors)
