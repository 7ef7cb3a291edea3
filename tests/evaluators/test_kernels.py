"""Similarity of classes by their kernels, its mean over a split, its picture, and the command."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

from mljax.checkpoints.checkpoint import save_model
from mljax.evaluate import main
from mljax.evaluators.kernels import (
    KernelStatistics,
    _variance_table,
    class_similarity,
    plot_label_correlation,
    watch_kernels,
)
from mljax.losses.kernel_mixture import kernel_contrastive_loss
from mljax.models.classifier import create_model
from tests import miniature

B, D, K = 3, 6, 4
# Shapes of means and variances: the six pairs of covariance and similarity.
SHAPES = [
    ((1, K), (1, K)),
    ((1, K), (D, 1)),
    ((1, K), (1, 1)),
    ((D, K), (D, K)),
    ((D, K), (D, 1)),
    ((D, K), (1, 1)),
]


@functools.cache
def _model(head="kernel_mixture", **head_kwargs):
    """Returns a small network of ten classes."""
    backbone = miniature.BACKBONE
    model = create_model(
        backbone.name,
        head,
        num_classes=10,
        backbone_kwargs=backbone.kwargs,
        head_kwargs=head_kwargs,
        rngs=nnx.Rngs(0),
    )
    model.preprocessing = miniature.PREPROCESSING
    return model


def _kernels(mean_shape=(D, K), variance_shape=(D, K), rows=B):
    rng = np.random.default_rng(0)
    means = rng.normal(0, 0.4, (rows, *mean_shape)).astype(np.float32)
    variances = rng.uniform(1, 3, (rows, *variance_shape)).astype(np.float32)
    return jnp.asarray(means), jnp.asarray(variances)


def _coefficient(mean_a, var_a, mean_b, var_b):
    """Returns the coefficient of two Gaussians by their density's integral in closed form."""
    middle = (var_a + var_b) / 2
    distance = np.sum((mean_a - mean_b) ** 2 / middle) / 8
    determinants = np.prod(middle) / np.sqrt(np.prod(var_a) * np.prod(var_b))
    return np.exp(-distance) / np.sqrt(determinants)


@pytest.mark.parametrize("shapes", SHAPES)
def test_similarity_is_the_bhattacharyya_coefficient_of_the_gaussians(shapes):
    means, variances = _kernels(*shapes)
    found = class_similarity(means, variances, num_features=D)
    means, variances = (np.broadcast_to(x, (B, D, K)).astype(float) for x in (means, variances))
    for n in range(B):
        for a, b in np.ndindex(K, K):
            kernels = means[n, :, a], variances[n, :, a], means[n, :, b], variances[n, :, b]
            assert found[n, a, b] == pytest.approx(_coefficient(*kernels), rel=1e-5)


def test_a_class_is_wholly_similar_to_itself():
    found = class_similarity(*_kernels(), num_features=D)
    np.testing.assert_array_equal(jnp.diagonal(found, axis1=1, axis2=2), 1)


@pytest.mark.parametrize("width_factor", [False, True])
def test_similarity_is_that_of_the_contrastive_loss(width_factor):
    means, variances = _kernels(rows=1)
    similarity = class_similarity(means, variances, num_features=D, width_factor=width_factor)[0]
    # The kernels of one image's classes as those of one class in several images.
    images = [jnp.swapaxes(x, 0, 2) for x in (means, variances)]
    found = kernel_contrastive_loss(
        jnp.zeros((K, D)), jnp.ones((K, 1)), *images, width_factor=width_factor
    )
    scores = np.exp(np.asarray(similarity, float) / 0.17)
    np.fill_diagonal(scores, 0)
    shares = scores / scores.sum(1, keepdims=True) + 1e-7
    np.fill_diagonal(shares, 1)
    np.testing.assert_allclose(found, -np.log(shares).sum(1) / (K - 1), rtol=1e-5)


def test_the_width_factor_is_a_power_for_anisotropic_kernels_alone():
    plain = class_similarity(*_kernels(), num_features=D)
    powered = class_similarity(*_kernels(), num_features=D, width_factor=True)
    np.testing.assert_allclose(powered, plain**D, rtol=1e-4)
    isotropic = _kernels((1, K), (1, K))
    plain = class_similarity(*isotropic, num_features=D)
    powered = class_similarity(*isotropic, num_features=D, width_factor=True)
    np.testing.assert_array_equal(powered, plain)


def test_no_array_of_dimensions_by_pairs_of_classes_is_stored():
    shape = jax.ShapeDtypeStruct((8, 64, 32), jnp.float32)
    sums = jax.jit(lambda *kernels: class_similarity(*kernels, num_features=64).sum(0))
    stored = sums.lower(shape, shape).compile().memory_analysis().temp_size_in_bytes
    assert stored < 2 * 4 * 8 * 32 * 32


@pytest.fixture(scope="module")
def batches():
    """Returns three batches of four images, some of them not valid."""
    rng = np.random.default_rng(0)
    images = rng.random((3, 4, 32, 32, 3)).astype(np.float32)
    valid = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 0]], bool)
    return [{"images": x, "valid": v, "index": v} for x, v in zip(images, valid, strict=True)]


def test_statistics_are_means_over_the_valid_images(batches):
    model = _model(reduced_features=D)
    statistics = KernelStatistics(model, similarity=True)
    watched = list(statistics.watch(batches))
    outputs = jax.jit(lambda x: model(x))(np.concatenate([b["images"] for b in batches]))
    kept = np.concatenate([b["valid"] for b in batches])
    found = statistics.means()
    assert found.keys() == {"variances", "similarity"}
    variances = np.asarray(outputs["variances"])[kept]
    np.testing.assert_allclose(found["variances"], variances.mean((0, 1)), rtol=1e-5)
    similarity = class_similarity(outputs["means"], outputs["variances"], num_features=D)
    expected = np.asarray(similarity)[kept].mean(0)
    np.testing.assert_allclose(found["similarity"], expected, rtol=1e-4, atol=1e-7)
    logits = np.concatenate([b["images"] for b in watched])
    np.testing.assert_allclose(logits, outputs["logits"], atol=1e-4)
    assert all(b["valid"] is w["valid"] for b, w in zip(batches, watched, strict=True))


def test_variances_that_the_classes_share_are_given_for_each(batches):
    statistics = KernelStatistics(_model(covariance="isotropic", similarity="rbf"))
    list(statistics.watch(batches))
    found = statistics.means()
    assert found.keys() == {"variances"}
    np.testing.assert_array_equal(found["variances"], found["variances"][0])


@pytest.mark.parametrize("count", [2, 10, 30])
def test_the_picture_shows_the_matrix(tmp_path, count):
    matrix = np.full((count, count), 0.25)
    matrix[0, 1] = matrix[1, 0] = 0.75
    path = tmp_path / "new" / "picture.png"
    plot_label_correlation(matrix, [f"[${c}_" for c in range(count)], path)
    with Image.open(path) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    viridis = {(68, 1, 84), (253, 231, 36)} if count > 2 else {(68, 1, 84)}
    assert viridis <= colors
    assert (217, 217, 217) in colors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kmcl") / "model"
    return save_model(folder, _model(reduced_features=D), recipe=miniature.recipe())


def test_the_command_reports_mean_variances_and_writes_the_picture(checkpoint, tmp_path, capsys):
    picture, output = tmp_path / "picture.png", tmp_path / "figures.json"
    options = ["--checkpoint", str(checkpoint), "--output", str(output)]
    assert main([*options, "--label-correlation", str(picture)]) == 0
    figures = json.loads(output.read_text())
    assert len(figures["mean_variances"]) == 10
    assert min(figures["mean_variances"]) >= 1
    matrix = np.array(figures["label_correlation"])
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-6)
    np.testing.assert_allclose(np.diag(matrix), 1)
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "mean predicted variance" in shown
    assert f"{figures['mean_variances'][7]:.4g}" in shown
    plain = tmp_path / "plain.json"
    assert main(["--checkpoint", str(checkpoint), "--output", str(plain)]) == 0
    found = json.loads(plain.read_text())
    assert found.keys() == figures.keys() - {"label_correlation"}
    assert found["mean_variances"] == pytest.approx(figures["mean_variances"])


def test_the_table_of_many_classes_shows_the_ends():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(_variance_table(np.arange(130.0), [f"class{c}." for c in range(130)]))
    shown = capture.get()
    assert "class0." in shown and "class129." in shown and "class65." not in shown


@pytest.mark.parametrize(
    ("head", "kwargs"), [("linear", {}), ("kernel_mixture", {"asymmetric_only": True})]
)
def test_a_network_without_kernels_has_no_statistics_and_no_picture(head, kwargs, tmp_path):
    model = _model(head, **kwargs)
    assert watch_kernels(model, None) is None
    with pytest.raises(ValueError, match=f"this one has a {head} head"):
        watch_kernels(model, tmp_path / "picture.png")


def test_a_picture_of_no_known_format_is_refused_before_the_evaluation(checkpoint, capsys):
    options = ["--checkpoint", str(checkpoint), "--split", "none"]
    assert main([*options, "--label-correlation", "picture.xyz"]) == 1
    shown = capsys.readouterr().err
    assert "picture.xyz: expected a file name that ends in" in shown and ".png" in shown


def test_a_picture_without_matplotlib_says_what_to_install(checkpoint, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["--checkpoint", str(checkpoint), "--label-correlation", "picture.png"]) == 1
    assert "pip install 'mljax[plot]'" in capsys.readouterr().err
    assert main(["--checkpoint", str(checkpoint)]) == 0
