"""TResNet against the original networks, through the converter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import from_torch, to_numpy
from mljax import create_model, list_models
from mljax.backbones.tresnet import BasicBlock, Bottleneck
from mljax.config import Part
from mljax.layers.pooling import space_to_depth
from mljax.losses import asymmetric_loss
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import ModelSpec, abstract_model
from tests import golden

MINI = golden.names("tresnet_eval", "mini")
FULL = golden.names("tresnet_eval", "asl")


def images(case, group="tresnet_eval"):
    x = golden.fill_input(*golden.cases(group)[case]["inputs"]["x"]["fill"])
    return jnp.asarray(np.moveaxis(x, 1, -1))


def load(group, case):
    slopes = {"stem_slope": 1e-6, "block_slope": 1e-6} if case == "mini_v2" else {}
    return from_torch(golden.state_dict(group, case), **slopes)


def logits_and_stages(model, images):
    """Returns the logits and what the golden holds of each stage: mean, deviation, 64 values."""

    @jax.jit
    def run(images):
        x = model.backbone.stem(space_to_depth(images))
        maps = [x]
        for blocks in model.backbone.stages:
            for block in blocks:
                x = block(x)
            maps.append(x)
        return model(images)["logits"], maps

    logits, maps = run(images)
    channels_first = [np.moveaxis(np.asarray(m), -1, 1) for m in maps]
    return logits, np.stack([np.r_[m.mean(), m.std(), m.ravel()[:64]] for m in channels_first])


@pytest.mark.parametrize("case", MINI)
def test_miniature_networks_match_the_original(case):
    expected, model = golden.arrays("tresnet_eval", case), load("tresnet_eval", case)
    logits, stages = logits_and_stages(model, images(case))
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    np.testing.assert_allclose(stages, expected["stages"], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", FULL)
def test_published_networks_match_the_original(case):
    graph, params, stats = split_model(load("tresnet_eval", case))

    @jax.jit
    def logits(params, stats, x):
        return merge_model(graph, params, stats)(x)["logits"]

    found = logits(params, stats, images(case))
    np.testing.assert_allclose(found, golden.arrays("tresnet_eval", case)["logits"], atol=1e-4)


@pytest.mark.slow
def test_the_tresnet_l_of_deep_object_reid_matches_the_original():
    graph, params, stats = split_model(load("aam_tresnetl", "tresnetl_k10"))
    (inputs,) = golden.cases("aam_tresnetl")["tresnetl_k10"]["inputs"].values()
    x = jnp.asarray(np.moveaxis(golden.fill_input(*inputs["fill"]), 1, -1))
    logits = jax.jit(lambda params, stats, x: merge_model(graph, params, stats)(x)["logits"])
    expected = golden.arrays("aam_tresnetl", "tresnetl_k10")["logits"]
    np.testing.assert_allclose(logits(params, stats, x), expected, atol=1e-4)


def block_from_torch(block, state):
    """Fills `block` with the tensors of a golden case; the names are those of one block."""
    for name in ("conv1", "conv2", "conv3"):
        if hasattr(block, name):
            prefix = f"block.{name}.0" if f"block.{name}.0.0.weight" in state else f"block.{name}"
            fill_conv_norm(getattr(block, name), state, prefix)
    if block.shortcut is not None:
        fill_conv_norm(block.shortcut, state, f"block.downsample.{1 if block.stride == 2 else 0}")
    if block.squeeze_excite is not None:
        for ours, theirs in (("reduce", "fc1"), ("expand", "fc2")):
            layer = getattr(block.squeeze_excite, ours)
            layer.kernel[...] = state[f"block.se.{theirs}.weight"][:, :, 0, 0].T
            layer.bias[...] = state[f"block.se.{theirs}.bias"]
    block.eval()
    return block


def fill_conv_norm(layer, state, prefix):
    layer.conv.kernel[...] = state[f"{prefix}.0.weight"].transpose(2, 3, 1, 0)
    layer.norm.scale[...] = state[f"{prefix}.1.weight"]
    layer.norm.bias[...] = state[f"{prefix}.1.bias"]
    layer.norm.mean[...] = state[f"{prefix}.1.running_mean"]
    layer.norm.var[...] = state[f"{prefix}.1.running_var"]


@pytest.mark.parametrize(
    ("case", "block_type", "in_features", "planes", "stride", "squeeze_excite"),
    [
        ("block_basic_s1", BasicBlock, 8, 8, 1, True),
        ("block_basic_s2", BasicBlock, 8, 16, 2, True),
        ("block_bottleneck_s2", Bottleneck, 16, 8, 2, True),
        ("block_bottleneck_nose", Bottleneck, 32, 8, 1, False),
    ],
)
def test_blocks_match_the_original(case, block_type, in_features, planes, stride, squeeze_excite):
    block = block_type(
        in_features,
        planes,
        stride=stride,
        squeeze_excite=squeeze_excite,
        slope=1e-3,
        rngs=nnx.Rngs(0),
    )
    block = block_from_torch(block, golden.state_dict("tresnet_ops", case))
    row, expected = golden.cases("tresnet_ops")[case], golden.arrays("tresnet_ops", case)
    x, cotangent = (
        jnp.asarray(np.moveaxis(golden.fill_input(*row["inputs"][k]["fill"]), 1, -1))
        for k in ("x", "cotangent")
    )

    @jax.jit
    def run(x, cotangent):
        y, pull_back = jax.vjp(block, x)
        return y, *pull_back(cotangent)

    y, dx = run(x, cotangent)
    np.testing.assert_allclose(np.moveaxis(np.asarray(y), -1, 1), expected["y"], atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(np.asarray(dx), -1, 1), expected["dx"], atol=1e-5)


def training_step(state, x, labels, dtype):
    """Returns loss, logits, gradients and running statistics by torch name, and d loss / d x."""
    model = from_torch(state)
    model.train()
    graph, params, stats = split_model(model)
    params, stats = jax.tree.map(lambda a: a.astype(dtype), (params, stats))

    @jax.jit
    def run(params, stats, x, labels):
        def loss(params, x):
            network = merge_model(graph, params, stats)
            logits = network(x)["logits"]
            return asymmetric_loss(logits, labels).sum(), (
                logits,
                split_model(network)[2],
            )

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    (loss, (logits, stats)), (grads, dx) = run(params, stats, x.astype(dtype), labels.astype(dtype))
    by_name = to_numpy(merge_model(graph, grads, stats))
    return loss, logits, by_name, dx


def check_training_step(case, dtype, tolerance):
    row, expected = golden.cases("tresnet_train")[case], golden.arrays("tresnet_train", case)
    state = golden.state_dict("tresnet_train", case)
    if "zero_init" in row["hyper"]:
        zeros = [name for name, (_, kind) in row["params"].items() if kind == "zero_gain"]
        state |= {name: np.zeros_like(state[name]) for name in zeros}
    name, (batch, *_), *_ = row["inputs"]["x"]["fill"]
    labels = golden.fill_input(f"{name}.y", (batch, row["hyper"]["num_classes"])) < 0.15
    twin = "_f64" if dtype == "float64" else ""
    with jax.enable_x64(dtype == "float64"):
        x = images(case, "tresnet_train")
        loss, logits, found, dx = training_step(state, x, jnp.asarray(labels), dtype)
        np.testing.assert_allclose(loss, expected["loss" + twin], rtol=tolerance)
        np.testing.assert_allclose(
            logits, expected["logits" + twin], rtol=tolerance, atol=tolerance
        )
        for kind in ("grad", "stat"):
            norms = [np.linalg.norm(found[n].ravel()) for n in row["extra"][f"{kind}_names"]]
            np.testing.assert_allclose(
                norms, expected[f"{kind}_norms{twin}"], rtol=tolerance, atol=tolerance
            )
    if not twin:
        dx = np.moveaxis(np.asarray(dx), -1, 1)
        summary = np.r_[dx.mean(), dx.std(), dx.ravel()[:64]]
        np.testing.assert_allclose(summary, expected["dx"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "case", ["mini", pytest.param("mini_zero_last_norm", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-4), pytest.param("float64", 1e-12, marks=pytest.mark.slow)],
)
def test_a_training_step_matches_the_original(case, dtype, tolerance):
    check_training_step(case, dtype, tolerance)


# In float64 alone: in float32 the kinks of the rectifiers flip, and torch's own gradient norms are
# up to 1e-3 from its float64 ones.
@pytest.mark.slow
def test_a_training_step_of_a_published_network_matches_the_original():
    check_training_step("asl_m", "float64", 1e-12)


def test_list_models_matches_a_pattern():
    assert list_models("*tresnet_l*") == ["tresnet_l", "tresnet_l_v2"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tresnet_m", 29_503_952),
        pytest.param("tresnet_l", 53_750_896, marks=pytest.mark.slow),
        pytest.param("tresnet_xl", 75_991_804, marks=pytest.mark.slow),
    ],
)
def test_published_parameter_counts(name, parameters):
    spec = ModelSpec(backbone=Part(name=name), head=Part(name="linear"), num_classes=80)
    assert sum(a.size for a in split_model(abstract_model(spec))[1].values()) == parameters


@functools.cache
def mini(**kwargs):
    return create_model(
        "tresnet_m",
        num_classes=3,
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 8},
        rngs=nnx.Rngs(0),
        **kwargs,
    )


def test_initialization_is_the_originals():
    _, params, _ = split_model(mini())
    for path, array in params.items():
        if path.endswith("conv2.norm.scale") and ".0.0." in path:
            assert not array.any(), f"{path}: the last gain of a Basic block starts at 0"
    kernel = params["backbone.stages.3.0.conv2.conv.kernel"]
    fan_out = 3 * 3 * kernel.shape[-1]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.05)
    np.testing.assert_allclose(params["head.linear.kernel"].std(), 0.01, rtol=0.1)
    assert abs(params["head.linear.bias"]).max() <= 256**-0.5


@pytest.mark.usefixtures("little_optimization")
def test_bfloat16_network_is_close_and_gives_float32_logits():
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    graph, params, stats = split_model(mini())
    narrow = nnx.graphdef(mini(dtype="bfloat16"))
    wide, found = (
        jax.jit(lambda x, g=g: merge_model(g, params, stats)(x)["logits"])(x)
        for g in (graph, narrow)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wide, atol=0.02)


@pytest.mark.usefixtures("little_optimization")
def test_model_is_made_in_eval_mode_and_training_moves_the_statistics():
    x = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    training = nnx.view(mini(), use_running_average=False)

    def statistics_after(model):
        graph, params, stats = split_model(model)

        @jax.jit
        def run(stats):
            network = merge_model(graph, params, stats)
            network(x)
            return split_model(network)[2]

        return stats, run(stats)

    for model, moves in ((mini(), False), (training, True)):
        before, after = statistics_after(model)
        for path, array in before.items():
            assert bool((array != after[path]).any()) == moves, path


def test_unknown_backbone_argument_is_named():
    with pytest.raises(ValueError, match="takes no argument 'layer'; did you mean layers"):
        create_model("tresnet_m", num_classes=3, backbone_kwargs={"layer": (1,)}, rngs=nnx.Rngs(0))


def test_stage_counts_other_than_four_raise():
    with pytest.raises(ValueError, match="4 entries each"):
        create_model(
            "tresnet_m", num_classes=3, backbone_kwargs={"layers": (1, 1)}, rngs=nnx.Rngs(0)
        )
