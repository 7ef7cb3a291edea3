"""The command that counts what a network costs."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mljax.checkpoints.checkpoint import save_model
from mljax.config import part
from mljax.cost import main
from mljax.heads import HEADS
from mljax.models.arrays import split_model
from mljax.models.classifier import Classifier, ModelSpec, abstract_model
from mljax.models.cost import count_cost
from tests import networks
from tests.converters.small_efficientnet import SMALL, small


def _spec(name, **kwargs):
    return ModelSpec(backbone=part(name, **kwargs), head=part("linear"), num_classes=80)


def _convolution(height, width, inputs, outputs, size):
    """Returns multiply-adds and outputs of a convolution that gives a map of this size."""
    return height * width * outputs * inputs * size**2, height * width * outputs


def test_every_product_of_a_small_network_is_counted():
    # 45 x 38 pixels: 23 x 19 behind the stem, 12 x 10, 6 x 5, 3 x 3 and 2 x 2 behind the stages.
    expected = [
        _convolution(23, 19, 3, 8, 3),
        *2 * [_convolution(23, 19, 8, 8, 3)],
        *(_convolution(12, 10, 8, 32, 3), _convolution(12, 10, 32, 8, 1)) * 2,
        *(_convolution(6, 5, 8, 32, 3), _convolution(6, 5, 32, 12, 1)),
    ]
    for before, after, inputs, outputs, expansion in (
        ((6, 5), (3, 3), 12, 16, 4),
        ((3, 3), (3, 3), 16, 16, 6),
        ((3, 3), (3, 3), 16, 16, 6),
        ((3, 3), (2, 2), 16, 24, 6),
    ):
        inner = expansion * inputs
        expected += [
            _convolution(*before, inputs, inner, 1),
            _convolution(*after, 1, inner, 3),
            (inner * (inputs // 4), inputs // 4),
            (inner * (inputs // 4), inner),
            _convolution(*after, inner, outputs, 1),
        ]
    expected += [_convolution(2, 2, 24, 32, 1), (32 * 3, 3)]
    cost = count_cost(small(), 45, 38)
    assert cost.multiply_adds == sum(count for count, _ in expected)
    assert cost.activations == sum(count for _, count in expected)
    assert cost.activation_bytes == 4 * cost.activations
    assert cost.parameters == sum(a.size for a in split_model(small())[1].values())


@pytest.mark.parametrize("graph_head", ["graph_reweighting", "ml_gcn"])
def test_a_graph_over_the_classes_is_folded_before_counting(graph_head):
    spec = ModelSpec(backbone=part("toy"), head=part("cosine"), num_classes=3)
    costs = [
        count_cost(Classifier(small().backbone, HEADS[head](32, 3, rngs=nnx.Rngs(0)), spec), 32, 32)
        for head in ("cosine", graph_head)
    ]
    assert costs[0].multiply_adds == costs[1].multiply_adds
    assert costs[0].parameters < costs[1].parameters


class _Scanned(nnx.Module):
    """Ten matrix products in a loop, and one in a branch beside a dearer one."""

    num_features = 4

    def __init__(self):
        self.matrix = nnx.Param(jnp.ones((4, 4)))

    def __call__(self, images):
        x = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)))
        matrix = self.matrix.get_value()
        x, _ = jax.lax.scan(lambda x, _: (x @ matrix, None), x, length=10)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ matrix, lambda x: x @ matrix @ matrix, x)


def test_loops_count_each_turn_and_branches_the_dearest():
    spec = _spec("resnet18")
    head = networks.pixel_model(5).head
    cost = count_cost(Classifier(_Scanned(), head, spec), 2, 3)
    assert cost.multiply_adds == 12 * (2 * 3 * 4 * 4) + 4 * 5


# Deep Object ReID's own counter: 11.38 and 35.24; the ASL paper: 43.5.
@pytest.mark.parametrize(
    ("name", "multiply_adds", "activations"),
    [
        pytest.param("efficientnet_v2_s", 11.38, 48.7, marks=pytest.mark.slow),
        pytest.param("tresnet_l_v2", 35.24, 64.6, marks=pytest.mark.slow),
        pytest.param("tresnet_l", 43.49, 46.7, marks=pytest.mark.slow),
    ],
)
def test_published_networks_at_448_pixels(name, multiply_adds, activations):
    cost = count_cost(abstract_model(_spec(name)), 448, 448)
    assert round(cost.multiply_adds / 1e9, 2) == multiply_adds
    assert round(cost.activations / 1e6, 1) == activations


def _json(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


SMALL_CONFIG = ("--config", "quickstart", "--set", "model.backbone.name=efficientnet_v2_s")
SMALL_CONFIG += ("--set", f"model.backbone.kwargs={json.dumps(SMALL)}")


def test_the_command_counts_a_config_without_its_data(capsys):
    numbers = ("--num-classes", "3", "--image-size", "38")
    absent = ("--set", "data.reader.name=coco", "--set", 'data.reader.kwargs={"root": "/nowhere"}')
    found = _json(capsys, *SMALL_CONFIG, *absent, *numbers)
    cost = count_cost(small(), 38, 38)
    assert found["multiply_adds"] == cost.multiply_adds
    assert found["parameters"] == cost.parameters
    assert (found["height"], found["width"]) == (38, 38)
    assert main([*SMALL_CONFIG, *absent]) == 1
    assert "--num-classes K counts without data" in capsys.readouterr().err


def test_the_command_counts_a_checkpoint_for_people(tmp_path, capsys):
    checkpoint = str(save_model(tmp_path / "model", networks.model()))
    assert main(["--checkpoint", checkpoint]) == 0
    said = capsys.readouterr().out
    cost = count_cost(networks.model(), 32, 32)
    assert f"{cost.parameters:,}" in said
    assert f"{cost.activations / 1e6:.1f} M values" in said
    assert "one image of 32 x 32, float32" in said
    assert main(["--checkpoint", checkpoint, "--num-classes", "3"]) == 1
    assert "not a checkpoint" in capsys.readouterr().err


def test_half_precision_halves_the_bytes(capsys):
    numbers = ("--num-classes", "3", "--image-size", "38", "--set", "model.dtype=bfloat16")
    found = _json(capsys, *SMALL_CONFIG, *numbers)
    # The logits' layer is in bfloat16 too.
    assert found["activation_bytes"] == 2 * found["activations"]
