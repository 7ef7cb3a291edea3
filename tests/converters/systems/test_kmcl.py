"""KMCL checkpoints: whole networks against the published code, names, both directions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from converters import from_torch, to_torch
from converters.convert import main
from converters.files.read_torch import read_torch
from converters.models import build_model, detect, find_table
from converters.verify import verify
from mljax.checkpoints.checkpoint import load_model, save_model
from mljax.config import Part
from mljax.models.arrays import split_model
from mljax.models.classifier import ModelSpec, abstract_model, create_model
from mljax.training.initialize import initialize_from
from tests import golden

CASES = golden.names("kmcl_model")
KEYS = {"logits": "pi", "features": "feat", "means": "mu", "variances": "var"}
CLASSIFIER = ("encoder.head.fc.weight", "encoder.head.fc.bias")
CLASSES, FEATURES, REDUCED = 3, 512, 6
# Outputs of the layer of variances.
VARIANCES = {
    ("isotropic", "bhattacharyya"): CLASSES,
    ("isotropic", "mahalanobis"): FEATURES,
    ("isotropic", "rbf"): 1,
    ("anisotropic", "bhattacharyya"): REDUCED * CLASSES,
    ("anisotropic", "mahalanobis"): REDUCED,
    ("anisotropic", "rbf"): 1,
}
KINDS = [
    ("isotropic", "bhattacharyya"),
    ("anisotropic", "bhattacharyya"),
    ("isotropic", None),
    ("anisotropic", None),
]


@functools.cache
def _body():
    tensors = golden.state_dict("tresnet_eval", "mini_64")
    return {f"encoder.{k}": v for k, v in tensors.items() if k.startswith("body.")}


def _state_dict(covariance="anisotropic", similarity="bhattacharyya"):
    """Returns a small KMCL checkpoint; without a similarity, one of the asymmetric loss alone."""
    width, shapes = FEATURES, {CLASSIFIER[0]: (CLASSES, FEATURES), CLASSIFIER[1]: (CLASSES,)}
    if covariance == "anisotropic":
        width = REDUCED
        shapes |= {"downsampler.weight": (width, FEATURES, 1), "downsampler.bias": (width,)}
    outputs = {"pi": CLASSES}
    if similarity is not None:
        outputs["mean"] = CLASSES * (width if covariance == "anisotropic" else 1)
        outputs["var"] = VARIANCES[covariance, similarity]
    for layer, rows in outputs.items():
        shapes |= {f"kmm.{layer}.weight": (rows, width), f"kmm.{layer}.bias": (rows,)}
    counters = {k: v for k, v in _body().items() if not k.endswith("num_batches_tracked")}
    return counters | {k: golden.fill(k, shape, "weight") for k, shape in shapes.items()}


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph, state, x):
    return nnx.merge(graph, state)(x)


def _outputs(model, images):
    # Apart, so that networks with the same backbone share its compilation.
    features = _apply(*nnx.split(model.backbone), images.transpose(0, 2, 3, 1))
    return features, _apply(*nnx.split(model.head), features)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_published_networks_have_the_outputs_of_the_reference(case):
    row, expected = golden.cases("kmcl_model")[case], golden.arrays("kmcl_model", case)
    model = from_torch(golden.state_dict("kmcl_model", case))
    features, outputs = _outputs(model, golden.fill_input(*row["inputs"]["image"]["fill"]))
    pooled = expected["encoder_out"]
    np.testing.assert_allclose(features.mean((1, 2)), pooled, atol=1e-4, rtol=0)
    compared = 0
    for name, key in KEYS.items():
        if key in expected:
            array = expected[key]
            if row["extra"]["similarity"] == "MKS" and key == "var":
                # There, variances that the classes share are repeated.
                array = array.reshape(len(pooled), -1, row["extra"]["K"])[:, :, :1]
            array = array.reshape(outputs[name].shape)
            np.testing.assert_allclose(outputs[name], array, atol=1e-4, rtol=0, err_msg=name)
            compared += 1
    assert compared == (1 if row["extra"]["loss_opt"] == "ASLOnly" else 4)


@pytest.mark.parametrize(("covariance", "similarity"), KINDS)
def test_verify_passes_a_faithful_conversion(covariance, similarity):
    tensors = _state_dict(covariance, similarity)
    result = verify(from_torch(tensors), tensors, image_size=32)
    assert result.difference < 1e-5
    assert result.largest > 1e-3


@pytest.mark.usefixtures("little_optimization")
@pytest.mark.parametrize(
    ("covariance", "name"),
    [
        ("isotropic", "kmm.pi.weight"),
        ("anisotropic", "kmm.pi.bias"),
        ("anisotropic", "downsampler.weight"),
        ("anisotropic", "encoder.body.layer4.0.conv3.1.bias"),
    ],
)
def test_verify_fails_a_wrong_weight(covariance, name):
    tensors = _state_dict(covariance)
    model = from_torch(tensors)
    tensors[name] = tensors[name] + 0.1
    assert not verify(model, tensors, image_size=32).passed


@pytest.mark.parametrize("case", ["tresnet_m_iso_bc", "tresnet_l_aniso_mks"])
def test_an_export_has_the_names_shapes_and_order_that_the_original_loads(case):
    params = golden.cases("kmcl_model")[case]["params"]
    tensors = {k: np.broadcast_to(np.float32(0), shape) for k, (shape, _) in params.items()}
    _, found = detect(tensors)
    spec = ModelSpec(backbone=found.backbone, head=found.head, num_classes=found.num_classes)
    table = find_table(abstract_model(spec))
    assert [name for row in table.rows for name in row.sources] == list(params)
    for name in CLASSIFIER:
        entry = next(row for row in table.rows if row.sources == (name,))
        (array,) = entry.transform.to_torch()
        assert (list(array.shape), array.dtype) == (params[name][0], np.float32)


@pytest.mark.parametrize(("covariance", "similarity"), [*VARIANCES, ("isotropic", None)])
def test_the_round_trip_is_bit_exact_but_for_the_unused_classifier(covariance, similarity):
    tensors = _state_dict(covariance, similarity)
    exported = to_torch(from_torch(tensors))
    assert list(exported) == list(tensors)
    for name, array in exported.items():
        expected = np.zeros_like(array) if name in CLASSIFIER else tensors[name]
        np.testing.assert_array_equal(array, expected, strict=True, err_msg=name)


@pytest.mark.parametrize("width", [None, 1, 7])
def test_the_unused_classifier_may_have_any_shape_and_is_listed_with_a_reason(width):
    tensors = _state_dict()
    for name in CLASSIFIER:
        del tensors[name]
    if width is not None:
        tensors |= {name: np.zeros(width, np.float32) for name in CLASSIFIER}
    file = read_torch(tensors)
    _, report = build_model(file, *detect(tensors))
    assert set(report.unused) == (set() if width is None else set(CLASSIFIER))
    assert all("never trains nor uses" in reason for reason in report.unused.values())
    assert report.mapped == len(_state_dict()) - 2


def test_an_output_of_the_mean_layer_is_of_one_dimension_and_class():
    tensors, features = _state_dict(), jnp.ones((2, 1, 1, FEATURES))
    before = from_torch(tensors).head(features)["means"]
    tensors["kmm.mean.bias"][4 * CLASSES + 1] += 5
    after = from_torch(tensors).head(features)["means"]
    difference = np.zeros((2, REDUCED, CLASSES))
    difference[:, 4, 1] = 5
    np.testing.assert_allclose(after - before, difference, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_files_of_one_and_of_several_devices_are_imported(tmp_path, prefix):
    # An averaged network is saved as the first.
    tensors = _state_dict()
    path = tmp_path / "model-asl-PascalVOC_tresnet_m_ID_7.ckpt"
    torch.save({f"{prefix}{k}": torch.tensor(v) for k, v in tensors.items()}, path)
    states = [nnx.state(from_torch(source)) for source in (path, tensors)]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_missing_tensor_of_the_head_is_named():
    tensors = _state_dict()
    del tensors["kmm.var.weight"]
    with pytest.raises(ValueError, match=r"missing: kmm.var.weight \[18,6\]"):
        from_torch(tensors)


def test_there_are_no_names_of_timm():
    with pytest.raises(ValueError, match="original names.*timm"):
        to_torch(from_torch(_state_dict()), naming="timm")


def test_the_encoder_starts_from_an_imagenet_checkpoint_without_its_classifier(tmp_path):
    imagenet = from_torch(golden.state_dict("tresnet_eval", "mini_64"))
    spec = imagenet.spec
    folder = save_model(tmp_path / "imagenet", imagenet)
    fresh = create_model(
        spec.backbone.name,
        "kernel_mixture",
        num_classes=spec.num_classes,
        backbone_kwargs=spec.backbone.kwargs,
        rngs=nnx.Rngs(0),
    )
    model, what = initialize_from(fresh, str(folder))
    assert what.startswith("backbone; the head is fresh")
    sources = [split_model(network) for network in (model, imagenet, fresh)]
    found, given, before = ({**params, **stats} for _, params, stats in sources)
    for path, array in found.items():
        expected = (given if path.startswith("backbone.") else before)[path]
        np.testing.assert_array_equal(array, expected, err_msg=path)


def test_the_command_reports_what_it_detected_ignored_and_assumed(tmp_path, capsys):
    path = tmp_path / "kmcl.ckpt"
    torch.save({k: torch.tensor(v) for k, v in _state_dict().items()}, path)
    options = ["--verify", "--image-size", "32"]
    assert main([str(path), str(tmp_path / "out"), *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "kernel mixture head (anisotropic, bhattacharyya), 3 classes" in shown
    assert "2 (the encoder's own classifier" in shown
    assert "largest difference of a logit from torch" in shown
    assert "224 pixels" in shown and "mean and std of ImageNet" in shown
    head = load_model(tmp_path / "out").spec.head
    kwargs = {"covariance": "anisotropic", "similarity": "bhattacharyya", "reduced_features": 6}
    assert head == Part(name="kernel_mixture", kwargs=kwargs)
