"""The supervised contrastive loss against the published code, its limits, and its memory."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mljax.losses.contrastive import contrast, supervised_contrastive_loss
from mljax.training.objective import Term, total_loss
from tests import golden

# The published code gives nan here.
NOT_FINITE = ("batch1_v1", "unnormalised_x10")


def _rows(count, width=6, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return jnp.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _value_and_gradient(case, dtype):
    """Returns the mean over the anchors of a case, and its gradient, in the case's layout."""
    arrays, hyper = golden.arrays("supcon_loss", case), golden.cases("supcon_loss")[case]["hyper"]
    features = jnp.asarray(arrays["features"], dtype)
    images, views = features.shape[:2]
    labels = mask = None
    if "labels" in arrays:
        labels = jnp.repeat(jnp.asarray(arrays["labels"]).reshape(images), views)
    if "mask" in arrays:
        mask = jnp.kron(jnp.asarray(arrays["mask"]), jnp.ones((views, views)))

    def mean(features):
        return supervised_contrastive_loss(
            features.reshape(images * views, *features.shape[2:]),
            labels,
            mask=mask,
            views=views,
            anchor_views=1 if hyper["contrast_mode"] == "one" else None,
            temperature=hyper["temperature"],
            base_temperature=hyper["base_temperature"],
            chunk_size=5,
        ).mean()

    return jax.jit(jax.value_and_grad(mean))(features)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, "float32") for case in golden.names("supcon_loss") if case not in NOT_FINITE),
        ("all_labels_v3", "float64"),
    ],
)
def test_value_and_gradient_equal_supcontrast(case, dtype):
    arrays = golden.arrays("supcon_loss", case)
    with jax.enable_x64(dtype == "float64"):
        value, gradient = _value_and_gradient(case, dtype)
    suffix, tolerance = ("_f64", 1e-12) if dtype == "float64" else ("", 1e-6)
    np.testing.assert_allclose(value, arrays["loss" + suffix], rtol=tolerance, atol=tolerance)
    expected = arrays["dloss_dfeatures" + suffix]
    # Gradients are up to 2 where features are not normalized.
    np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("case", NOT_FINITE)
def test_where_the_reference_is_nan_the_limit_stands(case):
    value, gradient = _value_and_gradient(case, "float32")
    arrays = golden.arrays("supcon_loss", case)
    features, labels = arrays["features"].astype(np.float64), arrays.get("labels", np.zeros(1))
    rows = features.reshape(-1, features.shape[-1])
    numbers = np.repeat(labels, features.shape[1])
    costs = []
    for i in range(len(rows)):
        scores = np.delete(rows @ rows[i] / 0.07, i)
        positives = np.delete(numbers == numbers[i], i)
        gaps = np.logaddexp.reduce(scores) - scores[positives] if len(scores) else np.zeros(0)
        costs.append(gaps.mean() if positives.any() else 0.0)
    np.testing.assert_allclose(value, np.mean(costs), rtol=1e-6)
    assert jnp.isfinite(gradient).all()


def test_without_labels_each_view_is_picked_among_all_others():
    rows = _rows(8)
    found = supervised_contrastive_loss(rows, views=2, temperature=0.5, base_temperature=0.5)
    scores = np.asarray(rows @ rows.T, np.float64) / 0.5
    np.fill_diagonal(scores, -np.inf)
    partner = np.arange(8) ^ 1
    expected = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(8), partner]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_labels_of_several_classes_are_shared_if_any_is():
    labels = np.zeros((6, 40))
    for row, classes in enumerate([(0,), (0, 39), (39,), (), (), (5,)]):
        labels[row, list(classes)] = 1
    labels[5, 0] = -1
    mask = labels.clip(0) @ labels.clip(0).T > 0
    rows = _rows(6)
    found = supervised_contrastive_loss(rows, jnp.asarray(labels))
    expected = supervised_contrastive_loss(rows, mask=jnp.asarray(mask))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[3:], 0)
    assert (found[:3] > 0).all()


def test_the_inner_loss_is_at_most_the_outer_and_equal_for_one_positive():
    rows, labels = _rows(7), jnp.array([0, 0, 1, 1, 1, 2, 1])
    outer, inner = (
        supervised_contrastive_loss(rows, labels, mean_inside_log=inside)
        for inside in (False, True)
    )
    np.testing.assert_allclose(inner[:2], outer[:2], rtol=1e-5)
    assert (inner[2:5] < outer[2:5]).all()
    assert outer[5] == inner[5] == 0
    scores = np.asarray(rows @ rows.T, np.float64) / 0.07
    share = np.exp(scores[2, [3, 4, 6]]).mean() / np.exp(np.delete(scores[2], 2)).sum()
    np.testing.assert_allclose(inner[2], -np.log(share), rtol=1e-5)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("temperature", [1e-4, 1e3])
def test_values_and_gradients_are_finite_at_any_temperature(temperature, inside):
    labels = jnp.array([0, 0, 1, 1, 2, 2, 3, 4])
    loss = functools.partial(
        supervised_contrastive_loss,
        labels=labels,
        temperature=temperature,
        base_temperature=temperature,
        mean_inside_log=inside,
    )
    value, gradient = jax.value_and_grad(lambda rows: loss(rows).sum())(_rows(8))
    assert np.isfinite(value)
    assert value > 0
    assert np.isfinite(gradient).all()


def test_rows_that_are_not_valid_change_nothing():
    rows, labels = _rows(6), jnp.array([0, 0, 1, 1, 0, 1])
    valid = jnp.array([True, True, True, True, False, False])
    found = supervised_contrastive_loss(rows, labels, valid)
    np.testing.assert_array_equal(found[4:], 0)
    np.testing.assert_allclose(
        found[:4], supervised_contrastive_loss(rows[:4], labels[:4]), rtol=1e-6
    )


def test_in_a_config_labels_none_leaves_out_the_labels_of_the_batch():
    batch = {"labels": jnp.eye(2)[jnp.array([0, 0, 0, 0])], "valid": jnp.ones(4, bool), "views": 2}
    outputs = {"projections": _rows(4)}

    def value(**kwargs):
        term = Term(
            name="contrast",
            function=supervised_contrastive_loss,
            kwargs=kwargs,
            reduction="mean",
            weight=1.0,
        )
        return total_loss([term], outputs, batch)[0]

    expected = supervised_contrastive_loss(outputs["projections"], views=2).mean()
    np.testing.assert_allclose(value(labels=None), expected, rtol=1e-6)
    assert abs(value() - expected) > 1e-3


def test_a_batch_of_8192_rows_never_holds_the_matrix_of_all_pairs():
    views, rows, classes = 8, 8 * 1024, 100
    shapes = (
        jax.ShapeDtypeStruct((rows, 128), jnp.float32),
        jax.ShapeDtypeStruct((rows, classes), jnp.float32),
    )
    loss = jax.value_and_grad(lambda z, y: supervised_contrastive_loss(z, y, views=views).mean())
    memory = jax.jit(loss).lower(*shapes).compile().memory_analysis()
    if memory is None:
        pytest.skip("this device does not tell the memory of a program")
    # 52 MiB measured; the matrix alone has 256.
    assert memory.temp_size_in_bytes < rows * rows * 4 / 4


def _eight_devices_equal_one():
    @jax.jit
    def found(rows, labels, valid):
        def mean(rows):
            return supervised_contrastive_loss(rows, labels, valid, views=2, chunk_size=5).mean()

        return jax.value_and_grad(mean)(rows)

    devices = jax.devices("cpu")
    assert len(devices) == 8
    arrays = _rows(16), jnp.eye(3)[np.arange(16) // 2 % 3], jnp.arange(16) < 14
    sharding = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
    value, gradient = found(*jax.device_put(arrays, sharding))
    expected = found(*arrays)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-6)
    assert np.abs(gradient).max() > 0.01


def test_eight_devices_equal_one():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    program = f"from {__name__} import {_eight_devices_equal_one.__name__} as run; run()"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"labels": jnp.zeros(4), "mask": jnp.ones((4, 4))}, "give one of them"),
        ({"views": 3}, "3 views of each image in 4 rows"),
        ({"views": 2, "anchor_views": 3}, "anchor_views must be from 1 to the 2 views, got 3"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        supervised_contrastive_loss(_rows(4), **kwargs)


def test_anchors_may_be_some_rows_of_those_compared():
    rows, weights = _rows(6), jnp.asarray(np.random.default_rng(1).random((6, 6)), jnp.float32)

    def costs(**kwargs):
        return contrast(rows, lambda chosen: weights[chosen], temperature=0.3, **kwargs)

    some = costs(anchors=jnp.array([4, 1, 3]), chunk_size=2)
    np.testing.assert_allclose(some, costs()[jnp.array([4, 1, 3])], rtol=1e-6)
