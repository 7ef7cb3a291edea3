"""Gradients in micro-batches against those of the whole batch, on a network of two layers."""

import functools

import jax
import numpy as np
import pytest

from mljax.config import Preprocessing, loss
from mljax.data.images import normalize
from mljax.models.arrays import split_model
from mljax.trackers.class_prior import ClassPrior
from mljax.training.gradients import make_gradients, micro_batches
from mljax.training.objective import make_terms
from tests import networks

ROWS, CLASSES = 12, 3


def _batch():
    rng = np.random.default_rng(0)
    return {
        "images": rng.normal(size=(ROWS, 2, 2, 3)).astype(np.float32),
        "labels": rng.integers(-1, 2, (ROWS, CLASSES)).astype(np.float32),
        "valid": np.arange(ROWS) % 5 != 2,
    }


LOSSES = {
    "sum": (loss("asymmetric_loss"),),
    "mean": (loss("asymmetric_loss", reduction="mean"),),
    "both": (
        loss("asymmetric_loss", reduction="mean", weight=0.5),
        loss("selective_loss", mode="negative"),
    ),
}


@functools.cache
def _gradients(losses, count=None):
    """Returns the loss, variables, terms and gradients of a batch, whole or in micro-batches."""
    model, trackers = networks.pixel_model(CLASSES), {"class_prior": ClassPrior()}
    gradients = make_gradients(model, make_terms(LOSSES[losses], ()), trackers=trackers)
    if count is not None:
        gradients = micro_batches(gradients, count=count)
    _, params, statistics = split_model(model)
    variables = {
        "statistics": statistics,
        "trackers": {name: tracker.init(model) for name, tracker in trackers.items()},
    }
    (total, (after, terms)), grads = jax.jit(gradients)(
        params, variables, _batch(), jax.random.key(0)
    )
    return total, after, terms, grads


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("count", [3, ROWS])
def test_micro_batches_sum_to_the_whole_batch(losses, count):
    total, _, terms, grads = _gradients(losses)
    found_total, _, found_terms, found_grads = _gradients(losses, count)
    np.testing.assert_allclose(found_total, total, rtol=1e-6)
    assert found_terms.keys() == terms.keys() == {term.name for term in LOSSES[losses]}
    for name, value in terms.items():
        np.testing.assert_allclose(found_terms[name], value, rtol=1e-6, err_msg=name)
    assert found_grads.keys() == grads.keys()
    for name, array in grads.items():
        np.testing.assert_allclose(found_grads[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_tracker_sees_each_micro_batch_once():
    _, whole, _, _ = _gradients("sum")
    _, parts, _, _ = _gradients("sum", 3)
    expected, found = whole["trackers"]["class_prior"], parts["trackers"]["class_prior"]
    assert found["count"] == expected["count"] == _batch()["valid"].sum()
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-6)


def test_statistics_go_from_one_micro_batch_to_the_next():
    _, variables, _, _ = _gradients("sum", 3)
    assert variables["statistics"]["backbone.batches"] == 3


def test_a_batch_that_the_count_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="data.batch_size must be a multiple of .* 5 .*, got 12"):
        _gradients("sum", 5)


def test_a_count_below_one_is_refused():
    with pytest.raises(ValueError, match="micro_batches: count must be at least 1, got 0"):
        _gradients("sum", 0)


@pytest.mark.parametrize("views", [1, 2])
def test_bytes_and_their_floats_give_the_same_bits_with_zeros_in_rows_that_are_not_valid(views):
    preprocessing = Preprocessing(image_size=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    shape = (ROWS, 2, 2, 3) if views == 1 else (ROWS, views, 2, 2, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    batch = _batch()
    floats = normalize(images, preprocessing)
    floats[~batch["valid"]] = 0
    model = networks.pixel_model(CLASSES)
    terms = make_terms(LOSSES["sum"], ())
    gradients = jax.jit(make_gradients(model, terms, preprocessing=preprocessing))
    _, params, statistics = split_model(model)
    variables = {"statistics": statistics, "trackers": {}}
    found, expected = (
        gradients(params, variables, batch | {"images": given}, jax.random.key(0))
        for given in (images, floats)
    )
    jax.tree.map(np.testing.assert_array_equal, found, expected)
