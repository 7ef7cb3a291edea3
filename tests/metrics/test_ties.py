"""Average precision where scores are equal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mljax.metrics.ranking import (
    average_precision,
    mean_average_precision,
    partial_average_precision,
)
from tests import golden


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 6))
def test_equal_ties_give_the_value_of_scikit_learn_in_any_order(seed, images, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (images, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (images, 2)).astype(np.int8)
    labels[0] = 1
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(2)]
    found = average_precision(scores, labels, ties="equal")
    np.testing.assert_allclose(found, expected, atol=1e-12)
    order = rng.permutation(images)
    np.testing.assert_array_equal(
        average_precision(scores[order], labels[order], ties="equal"), found
    )


@pytest.mark.parametrize("first", [True, False])
def test_a_constant_network_has_the_frequency_of_the_class(first):
    labels = np.zeros((10, 1), np.int8)
    labels[:2] = 1
    labels = labels if first else labels[::-1]
    scores = np.full((10, 1), 0.7, np.float32)
    assert mean_average_precision(scores, labels, ties="equal") == pytest.approx(20.0)
    # By the order of the files it is anything.
    assert mean_average_precision(scores, labels) == pytest.approx(
        100 * (1 / 9 + 2 / 10) / 2 if first else 100.0
    )


def test_without_ties_both_are_the_same():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 5)), rng.integers(0, 2, (200, 5))
    ordered, equal = (average_precision(scores, labels, ties=t) for t in ("order", "equal"))
    np.testing.assert_array_equal(ordered, equal)


def test_ignored_entries_are_in_no_tie():
    scores = np.array([[0.5], [0.5], [0.5], [0.1]])
    labels = np.array([[1], [0], [-1], [1]])
    found = partial_average_precision(scores, labels, ties="equal")
    np.testing.assert_allclose(found, [(1 / 2 + 2 / 3) / 2])


@pytest.mark.parametrize("case", golden.names("asl_metrics", "plain", "ties", "empty", "thr"))
def test_equal_ties_are_no_worse_than_the_worst_order_of_the_original(case):
    arrays = golden.arrays("asl_metrics", case)
    found = average_precision(arrays["scores"], arrays["y"], ties="equal")
    assert (found >= arrays["ap_worst_ties"] - 1e-6).all()
    # The best order is no bound: of a group of positives alone, the last rank is the best.
    moved = 100 * (found.mean() - average_precision(arrays["scores"], arrays["y"]).mean())
    assert moved == pytest.approx(
        {"ties_small": -2.016, "ties_large": -2.497}.get(case, 0), abs=1e-3
    )
