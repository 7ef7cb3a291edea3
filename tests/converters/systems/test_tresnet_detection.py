"""What a TResNet file is told to be, from its names and shapes."""

import numpy as np
import pytest

from mljax.config import Part
from tests import golden
from tests.converters.shapes import detected, full_size, golden_shapes


@pytest.mark.parametrize(
    ("case", "backbone", "variant"),
    [
        ("m", "tresnet_m", "TResNet-M"),
        ("l", "tresnet_l", "TResNet-L"),
        ("in21k_l", "tresnet_l_v2", "TResNet-L_V2"),
    ],
)
@pytest.mark.parametrize(
    ("column", "naming", "words"), [(0, "original", "original names"), (1, "timm", "timm's names")]
)
def test_published_variants_are_told_by_either_naming(
    case, backbone, variant, column, naming, words
):
    detection = detected(full_size(case, column))
    assert detection.backbone == Part(name=backbone)
    assert detection.head == Part(name="linear")
    assert detection.num_classes == 80
    assert detection.naming == naming
    assert detection.description == f"{variant} ({words}), linear head, 80 classes"


def test_extra_large_is_told_by_width_and_blocks():
    tensors = full_size("l")
    tensors["body.layer3.23.conv1.0.weight"] = np.zeros(1)
    tensors["body.conv1.0.weight"] = np.zeros((83, 48, 3, 3))
    assert detected(tensors).backbone == Part(name="tresnet_xl")


def test_an_unpublished_network_is_described_by_arguments():
    detection = detected(golden_shapes("tresnet_eval", "mini_bneck12"))
    assert detection.backbone.kwargs == {
        "layers": (1, 1, 2, 1),
        "width": 16,
        "bottleneck_stages": (True, True, True, True),
    }
    assert (
        "TResNet of 1+1+2+1 blocks, Bottleneck in stages 1 2 3 4, width 16" in detection.description
    )


@pytest.mark.parametrize(
    ("case", "kwargs"), [("asl_l_oi_64", {}), ("mini_bottleneck_head", {"embedding_size": 12})]
)
def test_the_bottleneck_head_is_told_with_its_width(case, kwargs):
    detection = detected(golden_shapes("tresnet_eval", case))
    assert detection.head == Part(name="bottleneck", kwargs=kwargs)
    assert detection.num_classes == golden.cases("tresnet_eval")[case]["hyper"]["num_classes"]


def test_images_are_not_normalized():
    preprocessing = detected(full_size("m")).preprocessing
    assert preprocessing.mean == (0, 0, 0)
    assert preprocessing.std == (1, 1, 1)
    assert preprocessing.image_size == 224


def test_no_single_missing_tensor_changes_the_answer():
    tensors = golden_shapes("tresnet_eval", "mini_bottleneck_head")
    whole = detected(tensors)
    for name in tensors:
        assert detected({k: v for k, v in tensors.items() if k != name}) == whole, name


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("body.layer3", "a TResNet without stage 3"),
        ("body.conv1", "without its stem"),
    ],
)
def test_a_cut_down_file_is_refused_by_what_lacks(prefix, message):
    tensors = golden_shapes("tresnet_eval", "mini_64")
    with pytest.raises(ValueError, match=message):
        detected({k: v for k, v in tensors.items() if not k.startswith(prefix)})


def test_a_file_without_classifier_is_a_backbone():
    tensors = golden_shapes("tresnet_eval", "mini_64")
    found = detected({k: v for k, v in tensors.items() if not k.startswith("head")})
    assert (found.head, found.num_classes) == (Part(name="pooled"), 0)
    assert found.backbone == detected(tensors).backbone
    assert "no classifier in the file" in found.description


def test_what_a_file_cannot_tell_is_said():
    size = "224 pixels unless given or in the file's name"
    large = detected(full_size("in21k_l")).assumption
    assert large.startswith(f"{size}; ") and "1e-6" in large
    assert detected(full_size("m")).assumption == size
