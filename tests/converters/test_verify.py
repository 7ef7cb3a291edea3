import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from converters import from_torch, to_numpy, to_torch
from converters.verify import verify
from mljax import create_model
from tests import golden
from tests.converters.small_resnet import small

SLOPES = {"mini_v2": {"stem_slope": 1e-6, "block_slope": 1e-6}}


def test_verify_passes_a_faithful_conversion():
    tensors = golden.state_dict("tresnet_eval", "mini_v2")
    model = from_torch(tensors, **SLOPES["mini_v2"])
    result = verify(model, tensors, image_size=32)
    assert result.passed
    assert result.difference < 1e-5
    assert result.image_size == 32


def test_verify_fails_a_wrong_weight():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    model = from_torch(tensors)
    tensors["body.layer4.0.conv3.1.bias"][:8] += 0.1
    result = verify(model, tensors, image_size=32)
    assert not result.passed


def test_verify_fails_where_a_weight_is_not_a_number():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    model = from_torch(tensors)
    tensors["head.fc.bias"][0] = np.nan
    assert not verify(model, tensors, image_size=32).passed


def test_verify_passes_an_ml_decoder():
    tensors = golden.state_dict("mldecoder_model", "mld_mini")
    assert verify(from_torch(tensors), tensors, image_size=32).difference < 1e-5


@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
@pytest.mark.parametrize("naming", ["original", "supcon"])
def test_verify_passes_a_resnet(head, naming):
    kwargs = {"embedding_size": 16, "feed_forward_size": 8, "num_groups": 2}
    model = create_model(
        "resnet50",
        head,
        num_classes=3,
        head_kwargs=kwargs if head == "ml_decoder" else {},
        backbone_kwargs={"layers": (1, 1, 1, 1), "width": 4, "cifar_stem": naming == "supcon"},
        rngs=nnx.Rngs(0),
    )
    tensors = to_torch(model, naming=naming)
    result = verify(from_torch(tensors), tensors, image_size=32)
    assert result.passed
    assert result.largest > 1e-3


def test_verify_fails_a_wrong_weight_of_an_ml_decoder():
    tensors = golden.state_dict("mldecoder_model", "mld_mini")
    model = from_torch(tensors)
    tensors["head.decoder.duplicate_pooling_bias"][:3] += 0.1
    assert not verify(model, tensors, image_size=32).passed


def test_rounding_in_float32_is_no_fault_of_the_conversion():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    body = {name: array for name, array in tensors.items() if not name.startswith("head.")}
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    network = nnx.jit(from_torch(body))
    pooled = np.asarray(network(jnp.asarray(images))["pooled"], np.float64)
    # Large weights that cancel out on the images that are compared.
    weights = np.random.default_rng(1).normal(size=tensors["head.fc.weight"].shape) * 1e6
    weights -= weights @ np.linalg.pinv(pooled) @ pooled
    tensors["head.fc.weight"] = weights.astype(np.float32)
    result = verify(from_torch(tensors), tensors, image_size=32)
    assert result.float32_difference > 1
    assert result.difference < 1e-6
    assert result.passed


def test_a_wrong_weight_is_wrong_in_float64_too():
    tensors = to_numpy(small())
    model = from_torch(tensors)
    tensors["fc.bias"] = tensors["fc.bias"] + 0.1
    result = verify(model, tensors, image_size=32)
    assert not result.passed
    assert result.difference == pytest.approx(0.1, rel=1e-4)
