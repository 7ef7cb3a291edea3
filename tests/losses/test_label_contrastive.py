"""MulCon's contrastive loss against the published code, its limits, memory and devices."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mljax.losses.contrastive import label_contrastive_loss, supervised_contrastive_loss
from tests import golden

SEVERAL = ("supcon_multihot", "supcon_weighted")
ROWS = [name for name in golden.names("mulcon_loss", "supcon") if name not in SEVERAL]
RAISE = ("stage2_denominator_too_big", "stage2_no_labels")
STAGES = [name for name in golden.names("mulcon_loss", "stage2") if name not in RAISE]


@functools.partial(jax.jit, static_argnames=("denominator_size", "temperature", "base_temperature"))
def _loss(projections, labels, logits=None, **arguments):
    def total(projections):
        return label_contrastive_loss(projections, labels, logits, **arguments).sum()

    return jax.value_and_grad(total)(projections)


def _spread(features, labels):
    """Returns rows of one label each as images of k labels, and the logits of the row's slot."""
    slots = labels.argmax(1)
    rows = np.arange(len(labels))
    projections = np.zeros((*labels.shape, features.shape[1]), features.dtype)
    projections[rows, slots] = features
    logits = np.full(labels.shape, -1.0, features.dtype)
    # A row without a label is an absent pair in the denominators.
    logits[rows, slots] = 1
    return jnp.asarray(projections), jnp.asarray(labels), jnp.asarray(logits), (rows, slots)


@pytest.mark.parametrize("case", ROWS)
def test_loss_of_rows_equals_reference(case):
    expected = golden.arrays("mulcon_loss", case)
    hyper = golden.cases("mulcon_loss")[case]["hyper"]
    projections, labels, logits, place = _spread(expected["features"], expected["labels"])
    loss, gradient = _loss(
        projections,
        labels,
        logits,
        denominator_size=len(labels) if len(labels) > hyper["len_pos"] else 0,
        temperature=hyper["temperature"],
        base_temperature=hyper["base_temperature"],
    )
    if case in ("supcon_one_row", "supcon_overflow"):
        # The reference raises, or is nan.
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()
        return
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient[place], expected["grad_features"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("case", STAGES)
def test_loss_of_a_batch_equals_reference(case):
    hyper = golden.cases("mulcon_loss")[case]["hyper"]
    expected = golden.arrays("mulcon_loss", case)
    labels = jnp.asarray(expected["gt_label"])
    projections = jnp.asarray(expected["con_feat"]).reshape(*labels.shape, -1)
    loss, _ = _loss(
        projections,
        labels,
        jnp.asarray(expected["pred"]),
        denominator_size=hyper["denominator_size"],
        temperature=0.2,
        base_temperature=0.2,
    )
    np.testing.assert_allclose(loss, expected["loss_contrastive"], rtol=2e-6)


@pytest.mark.parametrize("case", SEVERAL)
def test_rows_of_several_labels_equal_reference(case):
    """The original's class takes them, which its models never give."""
    hyper = golden.cases("mulcon_loss")[case]["hyper"]
    expected = golden.arrays("mulcon_loss", case)
    labels, features = expected["labels"], jnp.asarray(expected["features"])
    shared = (labels @ labels.T) * (1 - np.eye(len(labels), dtype=np.float32))
    mask = shared
    if hyper["weighted"]:
        either = (labels[:, None] + labels[None] > 0).sum(2)
        mask = shared * shared / either
    # The weights do not count in the number that the reference divides by.
    factors = mask.sum(1) / np.where(shared.sum(1) > 0, shared.sum(1), 1)

    def total(features):
        kwargs = {name: hyper[name] for name in ("temperature", "base_temperature")}
        costs = supervised_contrastive_loss(features, mask=jnp.asarray(mask), **kwargs)
        return (costs * factors).sum() / hyper["len_pos"]

    loss, gradient = jax.jit(jax.value_and_grad(total))(features)
    np.testing.assert_allclose(loss, expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected["grad_features"], atol=1e-6, rtol=1e-5)


def _batch(images=8, classes=5):
    projections = golden.fill_input("projections", (images, classes, 6), -1, 1)
    projections /= np.linalg.norm(projections, axis=-1, keepdims=True)
    labels = golden.fill_input("labels", (images, classes)) < 0.4
    return jnp.asarray(projections), jnp.asarray(labels, jnp.float32)


def test_no_present_label_costs_nothing():
    projections, labels = _batch()
    loss, gradient = _loss(projections, jnp.zeros_like(labels))
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_with_too_few_absent_pairs_all_of_them_join():
    projections, labels = _batch()
    logits = jnp.asarray(golden.fill_input("logits", labels.shape))
    all_pairs, _ = _loss(projections, labels, logits, denominator_size=labels.size)
    more, _ = _loss(projections, labels, logits, denominator_size=10 * labels.size)
    np.testing.assert_array_equal(all_pairs, more)


def test_unannotated_labels_and_invalid_images_are_left_out():
    projections, labels = _batch()
    run = jax.jit(functools.partial(label_contrastive_loss, valid=jnp.arange(8) < 6))
    found = run(projections, jnp.where(labels == 0, -1, labels))
    expected = jax.jit(label_contrastive_loss)(projections[:6], labels[:6])
    np.testing.assert_allclose(found[:6], expected, atol=1e-6)
    np.testing.assert_array_equal(found[6:], 0)


def test_fewer_rows_give_the_same_unless_they_are_too_few():
    projections, labels = _batch()
    pairs = int(labels.sum())
    expected, slopes = _loss(projections, labels)
    for count, fits in ((pairs, True), (pairs - 1, False)):

        @jax.jit
        def run(projections, count=count):
            costs = label_contrastive_loss(projections, labels, max_pairs=count, chunk_size=3)
            return costs.sum()

        found, gradient = jax.value_and_grad(run)(projections)
        assert np.isfinite(found) == fits
        if fits:
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            np.testing.assert_allclose(gradient, slopes, atol=1e-6)


def test_eight_views_of_a_thousand_images_fit_into_bounded_memory():
    images, classes, active, size = 8 * 1024, 20, 10, 128
    pairs = images * active

    def loss(projections, labels):
        costs = label_contrastive_loss(projections, labels, max_pairs=pairs, chunk_size=256)
        return costs.sum()

    shapes = (
        jax.ShapeDtypeStruct((images, classes, size), jnp.float32),
        jax.ShapeDtypeStruct((images, classes), jnp.float32),
    )
    analysis = jax.jit(jax.grad(loss)).lower(*shapes).compile().memory_analysis()
    # A matrix of all pairs has 25 GiB, the inputs 80 MiB.
    assert analysis.temp_size_in_bytes < 1.5 * 2**30


def _eight_devices_equal_one():
    devices = jax.devices("cpu")
    assert len(devices) == 8
    projections, labels = _batch(16)
    expected = _loss(projections, labels)
    sharding = NamedSharding(Mesh(np.array(devices[:8]), ("data",)), PartitionSpec("data"))
    found = _loss(*jax.device_put((projections, labels), sharding))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def test_eight_devices_equal_one():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    program = f"from {__name__} import {_eight_devices_equal_one.__name__} as run; run()"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"denominator_size": 3}, "needs logits"),
        ({"max_pairs": 0}, "max_pairs must be at least 1"),
    ],
)
def test_bad_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        label_contrastive_loss(*_batch(), **arguments)
