"""AAM's and ML-GCN's checkpoints: names, both directions, torch, and the published networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import from_torch, to_numpy
from converters.verify import verify
from mljax.config import Part, part
from mljax.data.co_occurrence import conditional_probabilities
from mljax.layers.graph import adjacency
from mljax.models.classifier import ModelSpec, abstract_model
from tests import golden
from tests.converters.shapes import detected, golden_shapes
from tests.converters.small_efficientnet import SMALL

TRESNET = part("tresnet_m", layers=(1, 1, 1, 1), width=8, bottleneck_stages=(True,) * 4)
RESNET = part("resnet18", layers=(1, 1, 1, 1), width=4)
EFFICIENTNET = part("efficientnet_v2_s", **SMALL)
DECODER = {"embedding_size": 16, "feed_forward_size": 8, "num_groups": 2}


def _graph(layer):
    return part("label_graph", layer=part(f"graph_{layer}"), word_vector_size=5)


NETWORKS = {
    "cosine": (EFFICIENTNET, part("cosine", scale=17.0)),
    "decoder": (EFFICIENTNET, part("ml_decoder", **DECODER, scale=17.0)),
    "plain decoder": (EFFICIENTNET, part("ml_decoder", **DECODER)),
    "decoder on a tresnet": (TRESNET, part("ml_decoder", **DECODER, scale=17.0)),
    "attention": (
        EFFICIENTNET,
        part("graph_reweighting", graph=_graph("attention"), head=part("cosine", scale=17.0)),
    ),
    "convolution": (
        RESNET,
        part(
            "graph_reweighting",
            graph=_graph("convolution"),
            head=part("linear", pooling=part("max")),
            hidden_features=6,
        ),
    ),
    "ml_gcn": (RESNET, part("ml_gcn", graph=_graph("convolution"), hidden_features=7)),
}
_apply = jax.jit(lambda model, images: model(images))
WORDS = golden.fill_input("words", (3, 5), -1, 1)
ARGUMENTS = {
    "convolution": {"pooling": "max"},
    "ml_gcn": {"word_vectors": WORDS},
    "plain decoder": {},
}


def _network(name):
    backbone, head = NETWORKS[name]
    model = abstract_model(ModelSpec(backbone=backbone, head=head, num_classes=3))
    rng = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if path[-1] == "edges":
            array = np.eye(3) + 0.2 * rng.uniform(size=(3, 3)).round()
        elif path[-1] in ("scale", "var"):
            array = rng.uniform(0.5, 1.5, variable.shape)
        else:
            fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 100
            array = rng.normal(0, np.sqrt(2 / fan_in), variable.shape)
        variable.set_value(jnp.asarray(array, variable.dtype))
    if name == "ml_gcn":
        model.head.graph.nodes[...] = WORDS
    return model


def _exported(name):
    naming = "original" if name == "ml_gcn" else "deep_object_reid"
    return to_numpy(_network(name), naming=naming)


def _imported(name, tensors):
    return from_torch(tensors, **ARGUMENTS.get(name, {"scale": 17.0}))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_round_trip_is_bit_exact(name):
    tensors, model = _exported(name), _network(name)
    imported = _imported(name, tensors)
    assert imported.head.__class__ is model.head.__class__
    jax.tree.map(np.testing.assert_array_equal, nnx.state(imported), nnx.state(model))
    again = to_numpy(imported)
    assert list(again) == list(tensors)
    for key, array in tensors.items():
        np.testing.assert_array_equal(again[key], array, strict=True, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cosine", "attention", "convolution", "ml_gcn", "decoder on a tresnet"]
)
def test_the_import_equals_the_reference(name):
    tensors = _exported(name)
    found = verify(_imported(name, tensors), tensors, image_size=64)
    assert found is not None and found.difference < 1e-4 * max(1, found.largest)
    assert found.largest > 1e-3


@pytest.mark.parametrize("name", ["decoder", "attention", "decoder on a tresnet"])
def test_the_names_of_a_backbone_may_lack_their_first_level(name):
    tensors = _exported(name)
    bare = {key.removeprefix("backbone."): array for key, array in tensors.items()}
    assert bare.keys() != tensors.keys()
    imported = _imported(name, bare)
    assert imported.naming == "deep_object_reid/bare"
    jax.tree.map(np.testing.assert_array_equal, nnx.state(imported), nnx.state(_network(name)))
    assert to_numpy(imported).keys() == bare.keys()


def test_the_class_names_are_in_the_file():
    content = {"state_dict": _exported("cosine"), "classes_map": {"b": 1, "a": 0, "c": 2}}
    assert from_torch(content).class_names == ("a", "b", "c")


def test_what_a_file_cannot_tell_is_assumed_or_given():
    tensors = _exported("decoder on a tresnet")
    assert from_torch(tensors).head.scale == 30
    assert from_torch(tensors, cosine=False).head.scale is None
    plain = _exported("plain decoder")
    assert "backbone.model.act2.weight" not in plain
    assert from_torch(plain).head.scale is None
    with pytest.raises(ValueError, match="scale is of cosines"):
        from_torch(plain, scale=17.0)
    with pytest.raises(ValueError, match="takes no pooling"):
        from_torch(plain, pooling="max")
    with pytest.raises(ValueError, match="takes no argument stem_slope"):
        from_torch(plain, stem_slope=1e-2)
    with pytest.raises(ValueError, match=r"needs word_vectors \[classes, 300\], got None"):
        from_torch(_exported("ml_gcn"))


def test_a_missing_tensor_is_named():
    tensors = _exported("attention")
    del tensors["gc2.a"]
    with pytest.raises(ValueError, match="missing: gc2.a"):
        from_torch(tensors)


def _golden_tensors(group, case):
    row = golden.cases(group)[case]
    tensors = golden.state_dict(group, case)
    if "gc1.W" in tensors:
        tensors["inp"] = golden.fill_input(*row["inputs"]["inp (state-dict entry)"]["fill"])
        tensors["A"] = golden.arrays(group, case)["A"]
    return tensors, golden.fill_input(*row["inputs"]["image"]["fill"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "case", "pooling"),
    [
        ("aam_tresnetl", "mld_tresnetl_k20", None),
        ("aam_effnet", "b0_am_k10", None),
        ("aam_effnet", "s_mld_am_k20", None),
        ("aam_effnet", "s_gat_am_k20", "average_plus_max"),
    ],
)
def test_the_published_networks_equal_reference(group, case, pooling):
    tensors, images = _golden_tensors(group, case)
    model = from_torch(tensors, pooling=pooling)
    images = jnp.asarray(images.transpose(0, 2, 3, 1))
    outputs = _apply(model, images)
    expected = golden.arrays(group, case)["logits"]
    np.testing.assert_allclose(outputs["cosines"], expected, atol=1e-4)
    assert model.preprocessing.image_size == 448


@pytest.mark.parametrize(
    ("group", "case", "backbone", "head"),
    [
        ("aam_tresnetl", "mld_tresnetl_k20", "tresnet_l_v2", "ml_decoder"),
        ("aam_effnet", "s_mld_am_k20", "efficientnet_v2_s", "ml_decoder"),
    ],
)
def test_the_published_networks_are_told(group, case, backbone, head):
    detection = detected(golden_shapes(group, case))
    assert (detection.backbone.name, detection.head.name) == (backbone, head)
    assert detection.head.kwargs["scale"] == 30
    assert detection.num_classes == 20
    assert "scale 30, 448 pixels" in detection.assumption


def _ml_gcn_tensors(group, case):
    row, arrays = golden.cases(group)[case], golden.arrays(group, case)
    probabilities = conditional_probabilities(arrays["counts"], arrays["nums"])
    edges = adjacency(probabilities, threshold=0.4, reweight=0.25).astype(np.float32)
    tensors = golden.state_dict(group, case) | {"A": edges}
    words = row["inputs"].get("word") or row["inputs"]["words"]
    return tensors, golden.fill_input(*words["fill"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "case", "image"),
    [
        ("mlgcn_model", "full_64", "img"),
        ("mlgcn_model", "full_448", "img"),
        ("aam_mlgcn", "resnet101_k20", "image"),
    ],
)
def test_the_published_ml_gcn_equals_reference(group, case, image):
    tensors, words = _ml_gcn_tensors(group, case)
    model = from_torch(tensors, word_vectors=words)
    assert model.spec.backbone == Part(name="resnet101")
    images = golden.fill_input(*golden.cases(group)[case]["inputs"][image]["fill"])
    expected = golden.arrays(group, case)["logits"]
    logits = _apply(model, jnp.asarray(images.transpose(0, 2, 3, 1)))["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1, np.abs(expected).max()))
