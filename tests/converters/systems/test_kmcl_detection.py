"""What a KMCL file is told to be, from its names and shapes."""

import pytest

from mljax.config import Part
from tests import golden
from tests.converters.shapes import detected, full_size, golden_shapes, shapes


@pytest.mark.parametrize(
    ("case", "backbone", "head", "classes"),
    [
        ("tresnet_m_iso_bc", "tresnet_m", {"similarity": "bhattacharyya"}, 20),
        ("tresnet_m_aniso_bc", "tresnet_m", {"similarity": "bhattacharyya"}, 20),
        ("tresnet_m_aslonly_iso", "tresnet_m", {"asymmetric_only": True}, 20),
        ("tresnet_l_aniso_mks", "tresnet_l", {"similarity": "mahalanobis"}, 9),
    ],
)
def test_kmcl_networks_are_told_with_covariance_and_similarity(case, backbone, head, classes):
    covariance = golden.cases("kmcl_model")[case]["extra"]["loss_case"]
    detection = detected(golden_shapes("kmcl_model", case))
    assert detection.backbone == Part(name=backbone)
    assert detection.head == Part(name="kernel_mixture", kwargs={"covariance": covariance, **head})
    assert detection.num_classes == classes
    assert covariance in detection.description


def _kmcl(*, variances=20, width=2048, reduced=None, classes=20):
    """Returns the shapes of a KMCL network on a full-size L_V2."""
    body = {f"encoder.{k}": a for k, a in full_size("in21k_l").items() if k.startswith("body.")}
    features = width if reduced is None else reduced
    layers = {"kmm.pi": (classes, features), "kmm.mean": (classes * (reduced or 1), features)}
    layers["kmm.var"] = (variances, features)
    if reduced is not None:
        layers["downsampler"] = (reduced, width, 1)
    for layer, shape in layers.items():
        body |= shapes({f"{layer}.weight": shape, f"{layer}.bias": shape[:1]})
    return body


@pytest.mark.parametrize(
    ("arguments", "kwargs"),
    [
        ({}, {"covariance": "isotropic", "similarity": "bhattacharyya"}),
        ({"variances": 2048}, {"covariance": "isotropic", "similarity": "mahalanobis"}),
        ({"variances": 1}, {"covariance": "isotropic", "similarity": "rbf"}),
        (
            {"variances": 1, "classes": 1},
            {"covariance": "isotropic", "similarity": "bhattacharyya"},
        ),
        ({"width": 20}, {"covariance": "isotropic", "similarity": "bhattacharyya"}),
        (
            {"variances": 1, "reduced": 128},
            {"covariance": "anisotropic", "similarity": "rbf"},
        ),
        (
            {"variances": 1280, "reduced": 64},
            {"covariance": "anisotropic", "similarity": "bhattacharyya", "reduced_features": 64},
        ),
    ],
)
def test_the_number_of_variances_tells_the_similarity(arguments, kwargs):
    detection = detected(_kmcl(**arguments))
    assert detection.head == Part(name="kernel_mixture", kwargs=kwargs)
    assert detection.backbone == Part(name="tresnet_l_v2")


def test_another_number_of_variances_is_refused():
    with pytest.raises(ValueError, match="x: kmm.var has 7 outputs, expected 1 or 2048 or 20 for"):
        detected(_kmcl(variances=7), "x")


@pytest.mark.parametrize(
    ("case", "classes", "size", "mean", "dataset"),
    [
        ("m", 20, 224, 0.485, "ImageNet"),
        ("l", 80, 448, 0.485, "ImageNet"),
        ("l", 9, 448, 0.81233799, "ADP"),
        ("m", 14, 224, 0.50576189, "ChestX-ray14"),
    ],
)
def test_kmcl_images_are_normalized_as_its_data_sets(case, classes, size, mean, dataset):
    tensors = {f"encoder.{k}": a for k, a in full_size(case).items()}
    tensors |= shapes({"kmm.pi.weight": (classes, 2048), "kmm.pi.bias": (classes,)})
    detection = detected(tensors)
    assert detection.preprocessing.image_size == size
    assert detection.preprocessing.mean[0] == mean
    assert f"{size} pixels" in detection.assumption and dataset in detection.assumption


def test_no_single_missing_tensor_of_a_kmcl_network_changes_the_answer():
    tensors = golden_shapes("kmcl_model", "tresnet_m_aniso_bc")
    whole = detected(tensors)
    for name in tensors:
        assert detected({k: v for k, v in tensors.items() if k != name}) == whole, name


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("kmm.pi", "has no classifier: neither kmm.pi.weight"),
        ("kmm.var", "has no variances: neither kmm.var.weight"),
        ("encoder.body.layer3", "a TResNet without stage 3"),
    ],
)
def test_a_cut_down_kmcl_file_is_refused_by_what_lacks(prefix, message):
    tensors = golden_shapes("kmcl_model", "tresnet_m_iso_bc")
    with pytest.raises(ValueError, match=message):
        detected({k: v for k, v in tensors.items() if not k.startswith(prefix)})
