"""ResNet checkpoints: names, both directions."""

import jax
import numpy as np
import pytest
from flax import nnx

from converters import from_torch, to_torch
from mljax.config import Part
from tests import golden
from tests.converters.shapes import detected, shapes_of
from tests.converters.small_resnet import ML_DECODER, small


def test_a_torchvision_network_is_told_by_its_names():
    tensors = golden.state_dict("q2l_model", "r101_h256_64")
    prefix = "backbone.0.body."
    body = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
    detection = detected(shapes_of(body | {"fc.weight": np.zeros((1000, 2048))}))
    assert detection.backbone == Part(name="resnet101")
    assert detection.head == Part(name="linear")
    assert detection.num_classes == 1000
    assert detection.preprocessing.image_size == 224
    assert detection.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("naming", ["original", "timm", "supcon"])
@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
def test_the_round_trip_is_bit_exact(naming, head):
    tensors = to_torch(small(head), naming=naming)
    imported = from_torch(tensors)
    again = to_torch(imported, naming=naming)
    assert list(again) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(again[name], array, strict=True, err_msg=name)
    pairs = zip(*(jax.tree.leaves(nnx.state(m)) for m in (small(head), imported)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


def test_ml_decoder_stands_where_the_classifier_stood():
    names = to_torch(small("ml_decoder")).keys()
    assert "fc.decoder.embed_standart.weight" in names
    assert "fc.decoder.layers.0.multihead_attn.in_proj_weight" in names
    names = to_torch(small("ml_decoder"), naming="timm").keys()
    assert "fc.embed_standart.weight" in names
    assert "fc.decoder.layers.0.linear1.weight" in names


def test_an_ml_decoder_head_is_told_with_its_groups_and_classes():
    detection = detected(shapes_of(to_torch(small("ml_decoder"))))
    assert detection.head == Part(name="ml_decoder", kwargs=ML_DECODER)
    assert detection.num_classes == 3


def test_no_single_missing_tensor_changes_the_answer():
    tensors = shapes_of(to_torch(small()))
    whole = detected(tensors)
    for name in tensors:
        assert detected({k: v for k, v in tensors.items() if k != name}) == whole, name


@pytest.mark.parametrize("name", ["conv1.weight", "layer2.0.downsample.1.bias", "fc.bias"])
def test_a_missing_tensor_raises(name):
    tensors = to_torch(small())
    del tensors[name]
    with pytest.raises(ValueError, match=f"missing: {name}"):
        from_torch(tensors)


def test_a_grouped_convolution_is_refused():
    tensors = to_torch(small())
    tensors["layer3.0.conv2.weight"] = tensors["layer3.0.conv2.weight"][:, :4]
    with pytest.raises(ValueError, match="misshapen: layer3.0.conv2.weight"):
        from_torch(tensors)


@pytest.mark.parametrize("prefix", ["layer3.", "bn1."])
def test_a_cut_down_file_is_refused(prefix):
    tensors = {k: v for k, v in to_torch(small()).items() if not k.startswith(prefix)}
    with pytest.raises(ValueError, match="the file is cut"):
        from_torch(tensors)


def test_slopes_are_no_argument_of_a_resnet():
    with pytest.raises(ValueError, match="takes no argument 'stem_slope'"):
        from_torch(to_torch(small()), stem_slope=0.01)
