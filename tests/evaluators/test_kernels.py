"""Similarity of classes by their kernels, its mean over a split, and its picture."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from rich.console import Console

from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.data.records import Classes
from mljax.evaluation import evaluate_model
from mljax.evaluators import Kernels, Multilabel
from mljax.evaluators.kernels import _variance_table, class_similarity, plot_label_correlation
from mljax.losses.kernel_mixture import kernel_contrastive_loss
from mljax.models.classifier import create_model
from tests import networks

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


CLASSES = Classes(names=tuple(f"class{c}" for c in range(K)))


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


def _update(evaluator, means, variances, size=4):
    """Hands kernels to an evaluator, `size` images at a time."""
    for first in range(0, len(means), size):
        outputs = {"means": means, "variances": variances, "features": np.zeros((len(means), D))}
        evaluator.update({k: np.asarray(x[first : first + size]) for k, x in outputs.items()}, {})
    return evaluator


def test_figures_are_means_over_the_images():
    means, variances = _kernels(rows=9)
    evaluator = _update(Kernels(similarity=True), means, variances)
    found = evaluator.result(CLASSES)
    assert found.keys() == {"mean_variances", "label_correlation"}
    assert json.loads(json.dumps(found)) == found
    np.testing.assert_allclose(found["mean_variances"], variances.mean((0, 1)), rtol=1e-6)
    expected = class_similarity(means, variances, num_features=D).mean(0)
    np.testing.assert_allclose(found["label_correlation"], expected, rtol=1e-5, atol=1e-7)


def test_variances_that_the_classes_share_are_given_for_each():
    means, variances = _kernels((1, K), (1, 1))
    found = _update(Kernels(), means, variances).result(CLASSES)
    assert found.keys() == {"mean_variances"}
    np.testing.assert_allclose(found["mean_variances"], np.repeat(variances.mean(), K), rtol=1e-6)


def test_the_evaluator_prints_the_variance_of_each_class():
    evaluator = _update(Kernels(), *_kernels())
    found = evaluator.result(CLASSES)
    console = Console(width=80)
    with console.capture() as capture:
        evaluator.show(console)
    shown = capture.get()
    assert "mean predicted variance" in shown
    for name, value in zip(CLASSES.names, found["mean_variances"], strict=True):
        assert f"{value:.4g}" in next(line for line in shown.splitlines() if name in line)


def test_the_picture_is_written_into_the_folder_if_classes_were_compared(tmp_path):
    for similarity, names in ((False, []), (True, ["label_correlation.png"])):
        evaluator = _update(Kernels(similarity=similarity), *_kernels())
        evaluator.result(CLASSES)
        assert [path.name for path in evaluator.pictures(tmp_path)] == names
        assert [path.name for path in tmp_path.iterdir()] == names


def test_one_class_has_no_picture(tmp_path):
    evaluator = _update(Kernels(similarity=True), *_kernels((D, 1), (D, 1)))
    evaluator.result(Classes(names=("one",)))
    assert evaluator.pictures(tmp_path) == []


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


def _model(head, kwargs):
    """Returns a small network of ten classes."""
    backbone = networks.BACKBONE
    model = create_model(
        backbone.name,
        head,
        num_classes=10,
        backbone_kwargs=backbone.kwargs,
        head_kwargs=kwargs,
        rngs=nnx.Rngs(0),
    )
    model.preprocessing, model.class_names = networks.PREPROCESSING, CLASS_NAMES
    return model


def _evaluate(model, **arguments):
    records = digits("val", num_images=20)
    figures, _ = evaluate_model(
        model, records, evaluators=[Multilabel(), Kernels(**arguments)], batch_size=20
    )
    return figures


@pytest.mark.slow
def test_a_network_with_kernels_is_evaluated_beside_its_labels():
    figures = _evaluate(_model("kernel_mixture", {"reduced_features": D}), similarity=True)
    assert figures["images"] == 20
    assert len(figures["mean_variances"]) == 10
    assert min(figures["mean_variances"]) >= 1
    matrix = np.array(figures["label_correlation"])
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-6)
    np.testing.assert_allclose(np.diag(matrix), 1)


def test_the_table_of_many_classes_shows_the_ends():
    console = Console(width=80)
    with console.capture() as capture:
        console.print(_variance_table(np.arange(130.0), [f"class{c}." for c in range(130)]))
    shown = capture.get()
    assert "class0." in shown and "class129." in shown and "class65." not in shown


@pytest.mark.slow
def test_a_network_without_kernels_is_named_with_the_outputs_that_it_lacks():
    model = _model("kernel_mixture", {"asymmetric_only": True})
    with pytest.raises(ValueError, match="kernel_mixture gives .*, but not means, variances"):
        _evaluate(model)
    with pytest.raises(ValueError, match="linear gives logits, but not features, means, variances"):
        _evaluate(networks.model())
