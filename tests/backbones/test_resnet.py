"""ResNets against the original networks, through the converter, and against torch's layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

from converters import from_torch, to_numpy
from mljax import create_model
from mljax.config import Part
from mljax.layers.norm import BatchNorm
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import ModelSpec, abstract_model
from tests import golden
from tests.converters.small_resnet import small


@functools.partial(jax.jit, static_argnums=0)
def _maps(graph, params, stats, images):
    """Returns the map, and the map after the second stage."""
    backbone = merge_model(graph, params, stats).backbone
    x = jax.nn.relu(backbone.stem(images))
    for blocks in backbone.stages[:2]:
        for block in blocks:
            x = block(x)
    return backbone(images), x


def _channels_first(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def _encoder(case):
    """Returns the encoder of a golden case as a checkpoint with a made-up classifier."""
    tensors = golden.state_dict("supcon_model", case)
    tensors = {name: a for name, a in tensors.items() if name.startswith("encoder.")}
    features = 512 if case.startswith("resnet18") else 2048
    fc = {"fc.weight": np.zeros((10, features), np.float32), "fc.bias": np.zeros(10, np.float32)}
    return from_torch(tensors | fc)


@pytest.mark.parametrize(
    "case", ["resnet18_mlp", pytest.param("resnet50_mlp", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_cifar_networks_match_the_original(case, dtype, tolerance):
    expected = golden.arrays("supcon_model", case)
    row = golden.cases("supcon_model")[case]
    images = _nhwc(golden.fill_input(*row["inputs"]["image"]["fill"]))
    twin = "_f64" if dtype == "float64" else ""
    graph, params, stats = split_model(_encoder(case))
    with jax.enable_x64(dtype == "float64"):
        cast = jax.tree.map(lambda a: a.astype(dtype), (params, stats))
        features, middle = _maps(graph, *cast, images.astype(dtype))
        pooled, middle = np.asarray(features.mean((1, 2))), _channels_first(middle)
    np.testing.assert_allclose(
        pooled, expected[f"encoder_out{twin}"], atol=tolerance, rtol=tolerance
    )
    for name, found in (
        ("mean", middle.mean()),
        ("std", middle.std()),
        ("first64", middle.ravel()[:64]),
        ("last64", middle.ravel()[-64:]),
    ):
        summary = expected[f"layer2_out{twin}__{name}"]
        np.testing.assert_allclose(found, summary, atol=tolerance, rtol=tolerance)


def _nhwc(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.mark.slow
def test_the_imagenet_network_with_frozen_norms_matches_torchvisions():
    tensors = golden.state_dict("q2l_model", "r101_h256_64")
    prefix = "backbone.0.body."
    tensors = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
    fc = {"fc.weight": np.zeros((3, 2048), np.float32), "fc.bias": np.zeros(3, np.float32)}
    model = from_torch(tensors | fc, frozen_norm=True)
    row = golden.cases("q2l_model")["r101_h256_64"]
    images = _nhwc(golden.fill_input(*row["inputs"]["img"]["fill"]))
    graph, params, stats = split_model(model)
    run = jax.jit(lambda params, stats, x: merge_model(graph, params, stats).backbone(x))
    found = _channels_first(run(params, stats, images))
    expected = golden.arrays("q2l_model", "r101_h256_64")
    assert found.shape == tuple(expected["feature_map_shape"])
    np.testing.assert_allclose(found.mean(), expected["feature_map_mean"], rtol=1e-5)
    np.testing.assert_allclose(found.std(), expected["feature_map_std"], rtol=1e-5)
    np.testing.assert_allclose(
        found.ravel()[:64], expected["feature_map_first64"], atol=1e-4, rtol=1e-5
    )


class _TorchBlock(nn.Module):
    """A block of torch's layers, with torchvision's names."""

    def __init__(self, inputs, planes, stride, bottleneck):
        super().__init__()
        outputs = 4 * planes if bottleneck else planes
        shapes = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        if bottleneck:
            shapes = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
        self.count = len(shapes)
        for number, (i, o, size, s) in enumerate(shapes, 1):
            conv = nn.Conv2d(i, o, size, stride=s, padding=size // 2, bias=False)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2d(o))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = y.relu() if number < self.count else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class _TorchResNet(nn.Module):
    """A miniature ResNet of torch's layers, with torchvision's names."""

    def __init__(self, bottleneck, cifar_stem, width=8, num_classes=5):
        super().__init__()
        size, stride = (3, 1) if cifar_stem else (7, 2)
        self.conv1 = nn.Conv2d(3, width, size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if cifar_stem else nn.MaxPool2d(3, stride=2, padding=1)
        features = width
        for stage in range(4):
            planes = width * 2**stage
            blocks = []
            for index in range(2 if stage == 1 else 1):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(_TorchBlock(features, planes, stride, bottleneck))
                features = 4 * planes if bottleneck else planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


def _torch_step(network, images, cotangent):
    """Returns logits, gradients by name and the statistics after one training step in float64."""
    network.double().train()
    logits = network(torch.tensor(images, dtype=torch.float64))
    (logits * torch.tensor(cotangent, dtype=torch.float64)).sum().backward()
    gradients = {name: p.grad.numpy() for name, p in network.named_parameters()}
    stats = {name: b.numpy() for name, b in network.named_buffers() if "running" in name}
    return logits.detach().numpy(), gradients | stats


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bottleneck", "cifar_stem", "size"), [(False, False, (70, 64)), (True, True, (17, 16))]
)
def test_a_training_step_matches_torchs_layers(bottleneck, cifar_stem, size):
    torch.manual_seed(0)
    network = _TorchResNet(bottleneck, cifar_stem)
    for name, tensor in network.state_dict().items():
        if ("bn" in name or "downsample.1" in name) and tensor.ndim:
            tensor.uniform_(0.5, 1.5)
    model = from_torch(network.state_dict())
    assert model.spec.backbone.kwargs["layers"] == (1, 2, 1, 1)
    images = golden.fill_input("resnet.step", (4, 3, *size), -2, 2)
    cotangent = golden.fill_input("resnet.step.cotangent", (4, 5), -1, 1)
    expected_logits, expected = _torch_step(network, images, cotangent)
    model.train()
    graph, params, stats = split_model(model)
    with jax.enable_x64(True):
        params, stats = jax.tree.map(lambda a: a.astype("float64"), (params, stats))

        def loss(params):
            trained = merge_model(graph, params, stats)
            logits = trained(jnp.asarray(_nhwc(images), "float64"))["logits"]
            return (logits * cotangent).sum(), (logits, split_model(trained)[2])

        gradients, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(params)
        found = to_numpy(merge_model(graph, gradients, stats))
    np.testing.assert_allclose(logits, expected_logits, atol=1e-10)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-8, rtol=1e-8, err_msg=name)


def test_batch_norm_in_training_matches_torchs():
    x = golden.fill_input("resnet.norm", (4, 3, 5, 8), -2, 2)
    theirs = nn.BatchNorm2d(8)
    ours = BatchNorm(8)
    ours.scale[...] = jnp.linspace(-1, 1, 8)
    theirs.weight.data = torch.linspace(-1, 1, 8)
    expected = theirs(torch.tensor(_channels_first(x))).detach().numpy()
    np.testing.assert_allclose(_channels_first(ours(jnp.asarray(x))), expected, atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, atol=1e-6)
    np.testing.assert_allclose(ours.var[...], theirs.running_var, atol=1e-6)


def test_frozen_norms_compute_as_in_eval_mode_and_never_change():
    tensors = {name: a for name, a in to_numpy(small()).items() if not name.startswith("fc.")}
    model = from_torch(tensors, frozen_norm=True)
    assert model.spec.backbone.kwargs["frozen_norm"] is True
    images = jnp.asarray(golden.fill_input("resnet.frozen", (2, 33, 40, 3), -2, 2))
    expected = jax.jit(from_torch(tensors))(images)["pooled"]
    model.train()
    graph, params, statistics = split_model(model)
    assert all(path.endswith("conv.kernel") for path in params)

    @jax.jit
    def run(params, statistics):
        network = merge_model(graph, params, statistics)
        network.train()
        return network(images)["pooled"], split_model(network)[2]

    found, after = run(params, statistics)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for path, array in statistics.items():
        np.testing.assert_array_equal(after[path], array, err_msg=path)
    assert to_numpy(model).keys() == tensors.keys()


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [
        ("resnet18", 11_689_512, 512),
        ("resnet34", 21_797_672, 512),
        ("resnet50", 25_557_032, 2048),
        pytest.param("resnet101", 44_549_160, 2048, marks=pytest.mark.slow),
    ],
)
def test_published_parameter_counts(name, parameters, features):
    spec = ModelSpec(backbone=Part(name=name), head=Part(name="linear"), num_classes=1000)
    model = abstract_model(spec)
    assert sum(a.size for a in split_model(model)[1].values()) == parameters
    assert model.backbone.num_features == features


@pytest.mark.parametrize(
    ("cifar_stem", "image", "expected"),
    [(False, (64, 96), (2, 3)), (False, (65, 33), (3, 2)), (True, (32, 40), (4, 5))],
)
def test_the_map_has_a_fixed_share_of_the_images_size(cifar_stem, image, expected):
    kwargs = {"layers": (1, 1, 1, 1), "width": 4, "cifar_stem": cifar_stem}
    spec = ModelSpec(
        backbone=Part(name="resnet18", kwargs=kwargs), head=Part(name="linear"), num_classes=2
    )
    backbone = abstract_model(spec).backbone
    shape = jax.ShapeDtypeStruct((1, *image, 3), jnp.float32)
    assert nnx.eval_shape(lambda b, x: b(x), backbone, shape).shape == (1, *expected, 32)


@functools.cache
def _miniature(**kwargs):
    return create_model(
        "resnet50",
        num_classes=3,
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 8},
        rngs=nnx.Rngs(0),
        **kwargs,
    )


def test_initialization_is_the_originals():
    _, params, _ = split_model(_miniature())
    kernel = params["backbone.stages.3.0.conv2.conv.kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * kernel.shape[-1])), rtol=0.05)
    for path, array in params.items():
        if path.endswith("norm.scale"):
            np.testing.assert_array_equal(array, 1, err_msg=path)


def test_bfloat16_network_is_close_and_gives_float32_logits():
    x = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    graph, params, stats = split_model(_miniature())
    narrow = nnx.graphdef(_miniature(dtype="bfloat16"))
    wide, found = (
        jax.jit(lambda x, g=g: merge_model(g, params, stats)(x)["logits"])(x)
        for g in (graph, narrow)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wide, atol=0.05)


def test_stage_counts_other_than_four_raise():
    with pytest.raises(ValueError, match="4 entries, got \\(1, 1\\)"):
        create_model(
            "resnet50", num_classes=3, backbone_kwargs={"layers": (1, 1)}, rngs=nnx.Rngs(0)
        )
