import numpy as np
import pytest

from converters.detect import detect
from mljax.config.schema import Part
from tests import golden


def _shapes(names):
    """Returns a state dict whose arrays take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in names.items()}


def _full_size(case, column=0):
    rows = golden.cases("tresnet_names")[case]["extra"]["names"]
    return _shapes({name[column]: name[2] for name in rows})


def _golden(group, case):
    params = golden.cases(group)[case]["params"]
    return _shapes({name: shape for name, (shape, _) in params.items()})


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
    detection = detect(_full_size(case, column))
    assert detection.backbone == Part(name=backbone)
    assert detection.head == Part(name="linear")
    assert detection.num_classes == 80
    assert detection.naming == naming
    assert detection.description == f"{variant} ({words}), linear head, 80 classes"


def test_extra_large_is_told_by_width_and_blocks():
    tensors = _full_size("l")
    tensors["body.layer3.23.conv1.0.weight"] = np.zeros(1)
    tensors["body.conv1.0.weight"] = np.zeros((83, 48, 3, 3))
    assert detect(tensors).backbone == Part(name="tresnet_xl")


def test_an_unpublished_network_is_described_by_arguments():
    detection = detect(_golden("tresnet_eval", "mini_bneck12"))
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
    detection = detect(_golden("tresnet_eval", case))
    assert detection.head == Part(name="bottleneck", kwargs=kwargs)
    assert detection.num_classes == golden.cases("tresnet_eval")[case]["hyper"]["num_classes"]


def test_the_ml_decoder_head_is_told_with_its_groups_and_classes():
    detection = detect(_golden("ckpt", "mldecoder"))
    assert detection.head == Part(name="ml_decoder", kwargs={"num_groups": 3, "embedding_size": 8})
    assert detection.num_classes == 7


def test_images_are_not_normalized():
    preprocessing = detect(_full_size("m")).preprocessing
    assert preprocessing.mean == (0, 0, 0)
    assert preprocessing.std == (1, 1, 1)
    assert preprocessing.image_size == 224


def test_no_single_missing_tensor_changes_the_answer():
    tensors = _golden("tresnet_eval", "mini_bottleneck_head")
    whole = detect(tensors)
    for name in tensors:
        assert detect({k: v for k, v in tensors.items() if k != name}) == whole, name


def test_another_network_is_refused_with_its_first_names():
    tensors = {"conv1.weight": np.zeros((64, 3, 7, 7)), "bn1.weight": np.zeros(64)}
    with pytest.raises(ValueError, match="x.pth: is of no known system.*conv1.weight, bn1.weight"):
        detect(tensors, "x.pth")


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("body.layer3", "a TResNet without stage 3"),
        ("body.conv1", "without its stem"),
        ("head", "has no classifier"),
    ],
)
def test_a_cut_down_file_is_refused_by_what_lacks(prefix, message):
    tensors = _golden("tresnet_eval", "mini_64")
    with pytest.raises(ValueError, match=message):
        detect({k: v for k, v in tensors.items() if not k.startswith(prefix)})


def test_what_a_file_cannot_tell_is_said():
    size = "224 pixels unless given or in the file's name"
    large = detect(_full_size("in21k_l")).assumption
    assert large.startswith(f"{size}; ") and "1e-6" in large
    assert detect(_full_size("m")).assumption == size


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
    detection = detect(_golden("kmcl_model", case))
    assert detection.backbone == Part(name=backbone)
    assert detection.head == Part(name="kernel_mixture", kwargs={"covariance": covariance, **head})
    assert detection.num_classes == classes
    assert covariance in detection.description


def _kmcl(*, variances=20, width=2048, reduced=None, classes=20):
    """Returns the shapes of a KMCL network on a full-size L_V2."""
    body = {f"encoder.{k}": a for k, a in _full_size("in21k_l").items() if k.startswith("body.")}
    features = width if reduced is None else reduced
    shapes = {"kmm.pi": (classes, features), "kmm.mean": (classes * (reduced or 1), features)}
    shapes["kmm.var"] = (variances, features)
    if reduced is not None:
        shapes["downsampler"] = (reduced, width, 1)
    for layer, shape in shapes.items():
        body |= _shapes({f"{layer}.weight": shape, f"{layer}.bias": shape[:1]})
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
    detection = detect(_kmcl(**arguments))
    assert detection.head == Part(name="kernel_mixture", kwargs=kwargs)
    assert detection.backbone == Part(name="tresnet_l_v2")


def test_another_number_of_variances_is_refused():
    with pytest.raises(ValueError, match="x: kmm.var has 7 outputs, expected 1 or 2048 or 20 for"):
        detect(_kmcl(variances=7), "x")


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
    tensors = {f"encoder.{k}": a for k, a in _full_size(case).items()}
    tensors |= _shapes({"kmm.pi.weight": (classes, 2048), "kmm.pi.bias": (classes,)})
    detection = detect(tensors)
    assert detection.preprocessing.image_size == size
    assert detection.preprocessing.mean[0] == mean
    assert f"{size} pixels" in detection.assumption and dataset in detection.assumption


def test_no_single_missing_tensor_of_a_kmcl_network_changes_the_answer():
    tensors = _golden("kmcl_model", "tresnet_m_aniso_bc")
    whole = detect(tensors)
    for name in tensors:
        assert detect({k: v for k, v in tensors.items() if k != name}) == whole, name


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("kmm.pi", "has no classifier: neither kmm.pi.weight"),
        ("kmm.var", "has no variances: neither kmm.var.weight"),
        ("encoder.body.layer3", "a TResNet without stage 3"),
    ],
)
def test_a_cut_down_kmcl_file_is_refused_by_what_lacks(prefix, message):
    tensors = _golden("kmcl_model", "tresnet_m_iso_bc")
    with pytest.raises(ValueError, match=message):
        detect({k: v for k, v in tensors.items() if not k.startswith(prefix)})
