"""EfficientNetV2 against the original networks, through the converter, and against torch.

Of the cases of `aam_effnet` two are not compared: `s_am_k20` has the features of `s_asl_k80` and
the classifier of `b0_am_k10`; the odd size of `s_odd70` is that of `tf_s_odd` of `effnetv2`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_numpy
from converters.reference.efficientnet_v2 import efficientnet_v2_features
from converters.reference.linear import to_tensors
from mljax import create_model
from mljax.config import Part
from mljax.losses.angular_margin import angular_margin_loss
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import ModelSpec, abstract_model
from tests import golden
from tests.converters.small_efficientnet import SMALL, small

PLAIN = {"same_padding": False, "norm_eps": 1e-5}


def _nhwc(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _channels_first(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def _images(group, case):
    (fill,) = (v["fill"] for v in golden.cases(group)[case]["inputs"].values())
    return _nhwc(golden.fill_input(*fill))


def _backbone(case):
    """Returns the network of Deep Object ReID's plain wrapper without its classifier."""
    tensors = golden.state_dict("aam_effnet", case)
    own = ("model.classifier.", "model.act2.")
    return from_torch(
        {n.removeprefix("model."): a for n, a in tensors.items() if not n.startswith(own)}
    )


@functools.partial(jax.jit, static_argnums=0)
def _maps(graph, params, statistics, images):
    """Returns the maps behind the stem, each stage, and the last convolution, and the head's dict.

    All are of one program, whose compilation takes most of the time.
    """
    model, maps = merge_model(graph, params, statistics), []

    def recorded(layer):
        def run(x):
            maps.append(layer(x))
            return maps[-1]

        return run

    backbone = model.backbone
    backbone.stem = recorded(backbone.stem)
    backbone.stages = nnx.List([recorded(blocks) for blocks in backbone.stages])
    features = backbone(images)
    return [*maps, features], model.head(features)


def _summary(x):
    x = _channels_first(x)
    return np.r_[x.mean(), x.std(), np.abs(x).max(), x.ravel()[:64]]


@pytest.mark.parametrize("case", ["b0_am_k10", pytest.param("l_am_k20", marks=pytest.mark.slow)])
def test_maps_match_the_network_of_deep_object_reid(case):
    expected = golden.arrays("aam_effnet", case)
    maps, _ = _maps(*split_model(_backbone(case)), _images("aam_effnet", case))
    stem, *stages, features = maps
    np.testing.assert_allclose(_channels_first(features), expected["features"], atol=1e-4)
    np.testing.assert_allclose(_summary(stem), expected["summary_stem"], atol=1e-4)
    for stage, found in enumerate(stages):
        np.testing.assert_allclose(
            _summary(found), expected[f"summary_stage{stage}"], atol=1e-4, rtol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize(("case", "arguments"), [("s_64", PLAIN), ("tf_s_odd", {})])
def test_both_paddings_match_timm(case, arguments):
    expected = golden.arrays("effnetv2", case)
    model = from_torch(golden.state_dict("effnetv2", case), **arguments)
    images = _images("effnetv2", case)
    maps, outputs = _maps(*split_model(model), images)
    found = np.asarray(outputs["logits"])
    np.testing.assert_allclose(found, expected["logits"], atol=1e-4)
    # As far from the exact result as torch is in float32, not farther.
    exact, theirs = expected["logits_f64"], expected["logits"]
    assert np.abs(found - exact).max() < 3 * np.abs(theirs - exact).max()
    maps = [_channels_first(x) for x in maps[1:-1]]
    found = np.stack([np.r_[x.mean(), x.std(), x.ravel()[:64]] for x in maps])
    np.testing.assert_allclose(found, expected["stages"], atol=1e-4, rtol=1e-5)


@pytest.mark.slow
def test_the_plain_network_of_deep_object_reid_matches_with_its_linear_classifier():
    tensors = golden.state_dict("aam_effnet", "s_asl_k80")
    graph, params, statistics = split_model(from_torch(tensors, pooling="average_plus_max"))
    logits = jax.jit(lambda p, s, x: merge_model(graph, p, s)(x)["logits"])
    found = logits(params, statistics, _images("aam_effnet", "s_asl_k80"))
    expected = golden.arrays("aam_effnet", "s_asl_k80")
    np.testing.assert_allclose(found, expected["logits"], atol=1e-4)
    assert sum(array.size for array in params.values()) == 20_279_968


@pytest.mark.slow
def test_a_training_step_matches_the_original_in_float64():
    expected = golden.arrays("aam_effnet", "s_train")
    model = _backbone("s_train")
    model.train()
    graph, params, statistics = split_model(model)
    weight = golden.state_dict("aam_effnet", "s_train")["model.classifier.weight"]
    with jax.enable_x64(True):
        params, statistics = jax.tree.map(lambda a: a.astype("float64"), (params, statistics))
        images = jnp.asarray(_images("aam_effnet", "s_train"), "float64")

        def loss(params, weight):
            trained = merge_model(graph, params, statistics)
            pooled = trained.backbone(images).mean((1, 2))
            pooled, columns = (
                x / jnp.linalg.norm(x, axis=axis, keepdims=True)
                for x, axis in ((pooled, 1), (weight, 0))
            )
            cosine = jnp.clip(pooled @ columns, -1, 1)
            labels = jnp.asarray(expected["targets"], "float64")
            losses = angular_margin_loss(
                cosine, labels, 17.0, margin=0.0, present_share=0.7, gamma_neg=2.0, gamma_pos=1.0
            )
            return losses.sum(), (cosine, split_model(trained)[2])

        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (value, (cosine, statistics)), (gradients, slope) = step(params, weight.astype("float64"))
        found = to_numpy(merge_model(graph, gradients, statistics))
    np.testing.assert_allclose(value, expected["train_loss_f64"], rtol=1e-9)
    np.testing.assert_allclose(cosine, expected["train_logits_f64"], atol=1e-9)
    found = {f"model.{name}": array for name, array in found.items()}
    found["model.classifier.weight"] = np.asarray(slope)
    compared = 0
    for key, summary in expected.items():
        kind, _, name = key.removesuffix("_f64").partition("_")
        if kind not in ("g", "after") or not key.endswith("_f64"):
            continue
        array = found[name]
        summarized = np.r_[array.mean(), array.std(), np.abs(array).max(), array.ravel()]
        np.testing.assert_allclose(
            summarized[: len(summary)], summary, rtol=1e-6, atol=1e-9, err_msg=name
        )
        compared += 1
    assert compared == 32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "size"),
    [({}, (45, 38)), (PLAIN, (32, 45))],
)
def test_a_training_step_matches_torchs_layers(arguments, size):
    model = nnx.clone(small(**arguments))
    model.train()
    images = golden.fill_input("efficientnet.step", (4, 3, *size), -2, 2)
    graph, params, statistics = split_model(model)
    weights = {n: w.double() for n, w in to_tensors(to_numpy(model)).items()}
    trained = {n: w.requires_grad_() for n, w in weights.items() if "running" not in n}
    theirs = efficientnet_v2_features(
        weights,
        torch.tensor(images, dtype=torch.float64),
        **{"same_padding": True, "norm_eps": 1e-3, **arguments},
        training=True,
    )
    cotangent = golden.fill_input("efficientnet.cotangent", tuple(theirs.shape), -1, 1)
    (theirs * torch.tensor(cotangent, dtype=torch.float64)).sum().backward()
    with jax.enable_x64(True):
        params, statistics = jax.tree.map(lambda a: a.astype("float64"), (params, statistics))

        def loss(params):
            trained = merge_model(graph, params, statistics)
            features = trained.backbone(jnp.asarray(_nhwc(images), "float64"))
            return (features * _nhwc(cotangent)).sum(), (features, split_model(trained)[2])

        gradients, (features, statistics) = jax.jit(jax.grad(loss, has_aux=True))(params)
        found = to_numpy(merge_model(graph, gradients, statistics))
    np.testing.assert_allclose(_channels_first(features), theirs.detach(), atol=1e-10)
    for name, array in found.items():
        if name.startswith("classifier"):
            continue
        expected = trained[name].grad if name in trained else weights[name]
        np.testing.assert_allclose(array, expected, atol=1e-8, rtol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("efficientnet_v2_b0", 7_139_704),
        pytest.param("efficientnet_v2_s", 21_458_488, marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_m", 54_139_356, marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_l", 118_515_272, marks=pytest.mark.slow),
    ],
)
def test_published_parameter_counts(name, parameters):
    spec = ModelSpec(backbone=Part(name=name), head=Part(name="linear"), num_classes=1000)
    model = abstract_model(spec)
    assert sum(a.size for a in split_model(model)[1].values()) == parameters
    assert model.backbone.num_features == 1280


@pytest.mark.parametrize(("image", "expected"), [((64, 96), (2, 3)), ((65, 33), (3, 2))])
def test_the_map_has_a_32nd_of_the_images_size_rounded_up(image, expected):
    shape = jax.ShapeDtypeStruct((1, *image, 3), jnp.float32)
    found = nnx.eval_shape(lambda b, x: b(x), small().backbone, shape)
    assert found.shape == (1, *expected, SMALL["num_features"])


@functools.cache
def _fresh(**kwargs):
    return create_model(
        "efficientnet_v2_s", num_classes=3, backbone_kwargs=SMALL, rngs=nnx.Rngs(0), **kwargs
    )


def test_initialization_is_the_originals():
    _, params, _ = split_model(_fresh())
    for block in ("2.0.expand", "3.0.depthwise"):
        kernel = params[f"backbone.stages.{block}.conv.kernel"]
        fan_out = 9 if "depthwise" in block else 9 * kernel.shape[-1]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.1)
    for path, array in params.items():
        if path.startswith("backbone") and path.endswith(("scale", "bias")):
            np.testing.assert_array_equal(array, path.endswith("scale"), err_msg=path)


@pytest.mark.slow
def test_bfloat16_network_is_close_and_gives_float32_logits():
    x = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    graph, params, statistics = split_model(_fresh())
    narrow = abstract_model(dataclasses.replace(_fresh().spec, dtype="bfloat16"))
    wide, found = (
        jax.jit(lambda x, g=g: merge_model(g, params, statistics)(x)["logits"])(x)
        for g in (graph, nnx.graphdef(narrow))
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wide, atol=0.02)


@pytest.mark.parametrize("kwargs", [{"layers": (1, 1)}, {"widths": (8,) * 7}])
def test_wrong_numbers_of_stages_raise(kwargs):
    with pytest.raises(ValueError, match="6 or 7 stages"):
        create_model("efficientnet_v2_s", num_classes=3, backbone_kwargs=kwargs, rngs=nnx.Rngs(0))
