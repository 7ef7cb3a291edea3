"""Query2Label's checkpoints: whole networks against the published code, names, both directions."""

import functools

import numpy as np
import pytest

from converters import from_torch, to_numpy
from converters.verify import verify
from mljax.config import Part, Preprocessing, part
from tests import golden, networks
from tests.converters.shapes import detected, golden_shapes
from tests.converters.small_resnet import logits

HEAD = part("query2label", embedding_size=8, num_heads=2, feed_forward_size=12, decoder_layers=1)
OTHER = part("query2label", num_heads=2, feed_forward_size=12, encoder_layers=0, learned_slope=True)
RESNET = part("resnet18", layers=(1, 1, 1, 1), width=4)
EFFICIENTNET = part(
    "efficientnet_v2_s",
    layers=(1, 1, 1, 1, 1, 1),
    widths=(4, 4, 4, 4, 4, 8),
    stem_width=4,
    num_features=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("case", golden.names("q2l_model"))
def test_the_published_networks_have_the_logits_of_the_reference(case):
    model = from_torch(golden.state_dict("q2l_model", case))
    images = golden.fill_input(*golden.cases("q2l_model")[case]["inputs"]["img"]["fill"])
    expected = golden.arrays("q2l_model", case)["logits"]
    np.testing.assert_allclose(logits(model, images.transpose(0, 2, 3, 1)), expected, atol=1e-4)


@functools.cache
def _small(naming):
    """Returns a small network and its torch tensors."""
    backbone, head = (RESNET, HEAD) if naming == "original" else (EFFICIENTNET, OTHER)
    model = networks.model(
        backbone=backbone, head=head, num_classes=3, preprocessing=Preprocessing(image_size=64)
    )
    model.class_names = None
    return model, to_numpy(model, naming=naming)


@pytest.mark.parametrize("naming", ["original", "deep_object_reid"])
def test_a_network_of_either_code_base_verifies_and_comes_back(naming):
    _, tensors = _small(naming)
    model = from_torch(tensors, num_heads=2)
    assert model.naming == naming
    # The size of the input is that of the table of positions.
    assert model.preprocessing.image_size == 64
    result = verify(model, tensors, image_size=64)
    assert result.difference < 1e-5 * result.largest
    assert result.largest > 1e-2
    back = to_numpy(model)
    assert list(back) == list(tensors)
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_the_table_of_positions_is_written_for_the_original():
    table = _small("original")[1]["backbone.1.pe"]
    assert table.shape == (1, 8, 2, 2)
    assert _small("deep_object_reid")[1]["backbone.position_embedding.pe"].shape == (1, 8, 2, 2)


@pytest.mark.parametrize(
    ("case", "backbone"), [("r101_h256_64", "resnet101"), ("tresnetl_h256_64", "tresnet_l")]
)
def test_the_published_networks_are_told_by_their_names(case, backbone):
    detection = detected(golden_shapes("q2l_model", case))
    assert detection.backbone == Part(name=backbone)
    size = 1024 if backbone == "resnet101" else 512
    kwargs = {"feed_forward_size": size, "embedding_size": 256}
    assert detection.head == Part(name="query2label", kwargs=kwargs)
    assert detection.num_classes == 20
    assert "4 attention heads" in detection.assumption


def test_layers_are_told_from_the_names():
    kwargs = {"self_attention": (1,), "pre_norm": True}
    tensors = dict(golden_shapes("q2l_model", "r101_h256_64"))
    for name in ("transformer.decoder.layers.1.self_attn.in_proj_bias", "transformer.encoder.norm"):
        tensors[f"{name}.weight"] = np.zeros(1, np.float32)
    found = detected(tensors).head.kwargs
    assert {key: found[key] for key in kwargs} == kwargs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm_eps": 1e-5}, "ResNet|resnet101.*takes no argument norm_eps"),
        ({"stem_slope": 1e-5}, "takes no argument stem_slope"),
    ],
)
def test_an_argument_of_another_backbone_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        detected(golden_shapes("q2l_model", "r101_h256_64"), **arguments)


@pytest.mark.parametrize("name", ["query_embed.weight", "fc.W", "transformer.decoder.norm.bias"])
def test_a_missing_tensor_raises(name):
    tensors = dict(_small("original")[1])
    del tensors[name]
    with pytest.raises(ValueError, match=name):
        from_torch(tensors, num_heads=2)
