"""ResNet checkpoints: whole networks against the published code, names, both directions."""

from functools import cache, partial

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_torch
from converters.detect import detect
from mljax import create_model
from mljax.config.schema import Part
from tests import golden

ML_DECODER = {"embedding_size": 16, "feed_forward_size": 8, "num_groups": 2}


@partial(jax.jit, static_argnums=0)
def _apply(graph, state, images):
    return nnx.merge(graph, state)(images)["logits"]


def _logits(model, images):
    return np.asarray(_apply(*nnx.split(model), images))


def _shapes(tensors):
    """Returns a state dict whose arrays take no memory."""
    return {name: np.broadcast_to(np.float32(0), a.shape) for name, a in tensors.items()}


@cache
def _small(head="linear", **kwargs):
    """Returns a small ResNet with noise for the statistics, which start alike in all layers."""
    model = create_model(
        "resnet18",
        head,
        num_classes=3,
        head_kwargs=ML_DECODER if head == "ml_decoder" else {},
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 4, **kwargs},
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(0)
    for _, variable in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        variable.set_value(jax.numpy.asarray(rng.uniform(0.5, 1.5, variable.shape), "float32"))
    nnx.update(model, nnx.state(model))
    return model


@pytest.mark.slow
def test_a_cross_entropy_network_has_the_logits_of_supcontrast():
    model = from_torch(golden.state_dict("supcon_model", "resnet50_ce"))
    row = golden.cases("supcon_model")["resnet50_ce"]
    images = golden.fill_input(*row["inputs"]["image"]["fill"]).transpose(0, 2, 3, 1)
    expected = golden.arrays("supcon_model", "resnet50_ce")["out"]
    np.testing.assert_allclose(_logits(model, images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("case", "backbone"), [("resnet18_mlp", "resnet18"), ("resnet50_ce", "resnet50")]
)
def test_supcontrast_networks_are_told_by_their_names(case, backbone):
    detection = detect(_shapes(golden.state_dict("supcon_model", case)))
    assert detection.backbone == Part(name=backbone, kwargs={"cifar_stem": True})
    assert detection.naming == "supcon"
    assert detection.preprocessing.image_size == 32


def test_the_statistics_of_cifar_10_are_assumed_for_ten_classes():
    detection = detect(_shapes(golden.state_dict("supcon_model", "resnet50_ce")))
    assert detection.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    assert "CIFAR-10" in detection.assumption


def test_a_torchvision_network_is_told_by_its_names():
    tensors = golden.state_dict("q2l_model", "r101_h256_64")
    prefix = "backbone.0.body."
    body = {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
    detection = detect(_shapes(body | {"fc.weight": np.zeros((1000, 2048))}))
    assert detection.backbone == Part(name="resnet101")
    assert detection.head == Part(name="linear")
    assert detection.num_classes == 1000
    assert detection.preprocessing.image_size == 224
    assert detection.preprocessing.mean == (0.485, 0.456, 0.406)


def test_a_projection_head_is_named_where_it_cannot_be_imported():
    with pytest.raises(ValueError, match=r"resnet18 with CIFAR stem .* projection head"):
        from_torch(_shapes(golden.state_dict("supcon_model", "resnet18_mlp")))


@pytest.mark.parametrize("naming", ["original", "timm", "supcon"])
@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
def test_the_round_trip_is_bit_exact(naming, head):
    tensors = to_torch(_small(head), naming=naming)
    imported = from_torch(tensors)
    again = to_torch(imported, naming=naming)
    assert list(again) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(again[name], array, strict=True, err_msg=name)
    pairs = zip(*(jax.tree.leaves(nnx.state(m)) for m in (_small(head), imported)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


def test_ml_decoder_stands_where_the_classifier_stood():
    names = to_torch(_small("ml_decoder")).keys()
    assert "fc.decoder.embed_standart.weight" in names
    assert "fc.decoder.layers.0.multihead_attn.in_proj_weight" in names
    names = to_torch(_small("ml_decoder"), naming="timm").keys()
    assert "fc.embed_standart.weight" in names
    assert "fc.decoder.layers.0.linear1.weight" in names


def test_an_ml_decoder_head_is_told_with_its_groups_and_classes():
    detection = detect(_shapes(to_torch(_small("ml_decoder"))))
    assert detection.head == Part(name="ml_decoder", kwargs=ML_DECODER)
    assert detection.num_classes == 3


def test_wrappers_and_counters_of_a_training_run_are_left_out(tmp_path):
    tensors = {}
    for name, array in to_torch(_small(cifar_stem=True), naming="supcon").items():
        wrapped = name.replace("encoder.", "encoder.module.")
        tensors[wrapped] = torch.tensor(array)
        if name.endswith("running_var"):
            counter = wrapped.replace("running_var", "num_batches_tracked")
            tensors[counter] = torch.tensor(7)
    torch.save({"model": tensors, "optimizer": {}, "epoch": 3}, tmp_path / "last.pth")
    model = from_torch(tmp_path / "last.pth")
    assert model.backbone.cifar_stem
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(_logits(model, images), _logits(_small(cifar_stem=True), images))


def test_no_single_missing_tensor_changes_the_answer():
    tensors = _shapes(to_torch(_small()))
    whole = detect(tensors)
    for name in tensors:
        assert detect({k: v for k, v in tensors.items() if k != name}) == whole, name


@pytest.mark.parametrize("name", ["conv1.weight", "layer2.0.downsample.1.bias", "fc.bias"])
def test_a_missing_tensor_raises(name):
    tensors = to_torch(_small())
    del tensors[name]
    with pytest.raises(ValueError, match=f"missing: {name}"):
        from_torch(tensors)


def test_a_grouped_convolution_is_refused():
    tensors = to_torch(_small())
    tensors["layer3.0.conv2.weight"] = tensors["layer3.0.conv2.weight"][:, :4]
    with pytest.raises(ValueError, match="misshapen: layer3.0.conv2.weight"):
        from_torch(tensors)


@pytest.mark.parametrize("prefix", ["layer3.", "bn1."])
def test_a_cut_down_file_is_refused(prefix):
    tensors = {k: v for k, v in to_torch(_small()).items() if not k.startswith(prefix)}
    with pytest.raises(ValueError, match="the file is cut"):
        from_torch(tensors)


def test_slopes_are_no_argument_of_a_resnet():
    with pytest.raises(ValueError, match="takes no argument 'stem_slope'"):
        from_torch(to_torch(_small()), stem_slope=0.01)


def test_tresnets_have_no_names_of_supcontrast():
    with pytest.raises(ValueError, match="original or timm names"):
        to_torch(from_torch(golden.state_dict("tresnet_eval", "mini_64")), naming="supcon")
