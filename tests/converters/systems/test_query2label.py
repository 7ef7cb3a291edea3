"""Query2Label's checkpoints: whole networks against the published code, names, both directions.

Not compared: `r101_h2048_64` and `tresnetl_v2_h256_64`, since their backbones and their heads are,
each by itself.
"""

import functools

import numpy as np
import pytest

from converters import from_torch, to_numpy
from converters.systems.query2label import table
from converters.verify import verify
from mljax.config import Part, Preprocessing, part
from mljax.models.classifier import ModelSpec, abstract_model
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
TRESNET = part("tresnet_m", layers=(1, 1, 1, 1), width=8, bottleneck_stages=(True,) * 4)
# {network: (backbone, head, naming)}.
SMALL = {
    "original": (RESNET, HEAD, "original"),
    "deep_object_reid": (EFFICIENTNET, OTHER, "deep_object_reid"),
    "deep_object_reid on a tresnet": (TRESNET, HEAD, "deep_object_reid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", golden.names("q2l_model"))
def test_the_published_networks_have_the_logits_of_the_reference(case):
    model = from_torch(golden.state_dict("q2l_model", case))
    images = golden.fill_input(*golden.cases("q2l_model")[case]["inputs"]["img"]["fill"])
    expected = golden.arrays("q2l_model", case)["logits"]
    np.testing.assert_allclose(logits(model, images.transpose(0, 2, 3, 1)), expected, atol=1e-4)


@functools.cache
def _small(name):
    """Returns a small network and its torch tensors."""
    backbone, head, naming = SMALL[name]
    model = networks.model(
        backbone=backbone, head=head, num_classes=3, preprocessing=Preprocessing(image_size=64)
    )
    model.class_names = None
    return model, to_numpy(model, naming=naming)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_of_either_code_base_verifies_and_comes_back(name):
    _, tensors = _small(name)
    model = from_torch(tensors, num_heads=2)
    assert model.naming == SMALL[name][2]
    assert model.preprocessing.mean == ((0.5,) * 3 if "reid" in name else (0.485, 0.456, 0.406))
    # The size of the input is that of the table of positions.
    assert model.preprocessing.image_size == 64
    result = verify(model, tensors, image_size=64)
    assert result.difference < 1e-5 * result.largest
    assert result.largest > 1e-2
    back = to_numpy(model)
    assert list(back) == list(tensors)
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=name)


@pytest.mark.slow
def test_a_tresnet_has_the_names_that_deep_object_reid_gives_it():
    """Those of its backbone beside ML-Decoder, one level deeper, and of its transformer."""
    beside_decoder = golden.cases("aam_tresnetl")["mld_tresnetl_k20"]["params"]
    groups = golden.cases("aam_groups")["q2l_b0"]["outputs"]
    of_head = {name for group in groups["groups"] for name in group["names"]}
    of_head |= set(groups["in_no_group"])
    expected = {f"backbone.{name}" for name in beside_decoder if name.startswith("backbone.")}
    expected |= {name for name in of_head if not name.startswith("backbone.")}
    kwargs = {"embedding_size": 2048, "feed_forward_size": 2048, "learned_slope": True}
    head = part("query2label", **kwargs)
    spec = ModelSpec(backbone=part("tresnet_l_v2"), head=head, num_classes=20)
    rows = table(abstract_model(spec), "deep_object_reid").rows
    found = {name for row in rows for name in row.sources}
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    assert found == expected - counters


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
