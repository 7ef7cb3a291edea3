"""Thresholds of the highest F1: the published ones, and those that give exactly that F1."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import mean_average_precision
from mljax.metrics.thresholds import best_f1_thresholds
from tests import golden
from tests.metrics.cases import random_table

CASES = golden.names("aam_metrics")


def _read(case):
    arrays = golden.arrays("aam_metrics", case)
    return 1 / (1 + np.exp(-arrays["raw"])), arrays["targets"], arrays


@pytest.mark.parametrize("case", CASES)
def test_thresholds_at_scores_equal_reference(case):
    scores, labels, arrays = _read(case)
    found = best_f1_thresholds(scores, labels, at_scores=True, undefined_is_best=True)
    np.testing.assert_allclose(found.values, arrays["thresholds"], rtol=1e-12)
    found = best_f1_thresholds(scores, labels, at_scores=True)
    np.testing.assert_allclose(found.values, arrays["thresholds_nan_as_zero"], rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("at", ["05", "03", "tuned"])
def test_means_over_images_and_entries_equal_reference(case, at):
    scores, labels, arrays = _read(case)
    threshold = {"05": 0.5, "03": 0.3, "tuned": arrays["thresholds"]}[at]
    found = precision_recall_f1(scores, labels, threshold=threshold)
    figures = [mean_average_precision(scores, labels)]
    figures += [getattr(found, name) for name in ("IP", "IR", "IF1", "OP", "OR", "OF1")]
    # 0 / 0, where nothing is predicted, is nan there.
    expected = 100 * np.nan_to_num(arrays[f"metrics_{at}"])
    # The reference sorts equal scores unstably, so their order, and AP, depend on the platform.
    first = 1 if case == "small_ties" else 0
    np.testing.assert_allclose(figures[first:], expected[first:], rtol=1e-7)


def _random(seed, kind):
    """Returns logits of 40 images and 8 classes: without ties, with many, or of half precision."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (40, 8)).astype(np.float32)
    labels = (rng.random((40, 8)) < np.linspace(0.02, 1, 8)).astype(np.int8)
    if kind == "ties":
        logits = np.round(logits)
    # Neighbors among the numbers of this type: no third one lies between them.
    close = np.float32(17) + np.spacing(np.float32(17)) * rng.integers(0, 3, (40, 8))
    return {
        "ties": logits,
        "float32": logits,
        "close": close,
        "bfloat16": jnp.asarray(logits, jnp.bfloat16),
    }[kind], labels


@pytest.mark.parametrize("kind", ["float32", "ties", "close", "bfloat16"])
@pytest.mark.parametrize("seed", range(3))
def test_thresholds_reproduce_the_highest_f1_exactly(kind, seed):
    logits, labels = _random(seed, kind)
    found = best_f1_thresholds(logits, labels)
    reproduced = precision_recall_f1(logits, labels, threshold=found.values)
    np.testing.assert_array_equal(reproduced.f1, found.f1)
    # Every set of images that a threshold can separate, below and above all of them too.
    wide = np.asarray(logits).astype(np.float32)
    candidates = np.concatenate([wide, wide.min(keepdims=True, axis=0) - 9])
    best = np.max([precision_recall_f1(logits, labels, threshold=t).f1 for t in candidates], axis=0)
    np.testing.assert_array_equal(found.f1, best)
    assert np.isnan(found.values).tolist() == (~labels.any(axis=0)).tolist()


def test_bfloat16_logits_give_the_thresholds_of_their_values():
    logits, labels = _random(0, "bfloat16")
    found = best_f1_thresholds(logits, labels)
    assert found.values.dtype == np.float32
    wide = best_f1_thresholds(np.asarray(logits).astype(np.float32), labels)
    np.testing.assert_array_equal(found.values, wide.values)


def test_the_threshold_lies_midway_between_predicted_and_not():
    logits, labels = np.array([[4.0], [2.0], [1.0]], np.float32), np.array([[1], [1], [0]])
    found = best_f1_thresholds(logits, labels)
    assert (found.values.tolist(), found.f1.tolist()) == ([1.5], [100.0])


def test_a_class_that_is_always_present_is_always_predicted():
    found = best_f1_thresholds(np.array([[4.0], [2.0]], np.float32), np.ones((2, 1)))
    assert (found.values.tolist(), found.f1.tolist()) == ([1.0], [100.0])


def test_of_equal_f1_the_lowest_threshold_is_taken():
    # 1 of 1 and 2 positives, or 2 of 4 and 2 positives: F1 is 2 / 3 both times.
    logits, labels = np.arange(4.0, 0, -1)[:, None], np.array([[1], [0], [0], [1]])
    assert best_f1_thresholds(logits, labels).values.tolist() == [0.0]


def test_ignored_and_unannotated_entries_do_not_count():
    scores, labels = random_table(3)
    ignored = np.arange(len(scores)) % 5 == 0
    expected = best_f1_thresholds(scores[~ignored], labels[~ignored])
    masks = {"ignored": np.broadcast_to(ignored[:, None], scores.shape)}
    hidden = np.where(ignored[:, None], -1, labels)
    for found in (
        best_f1_thresholds(scores, labels, **masks),
        best_f1_thresholds(scores, hidden, partial=True),
    ):
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_classes_without_positive_or_entry_have_no_threshold():
    scores, labels = random_table(4)
    labels[:, 1], labels[:, 2] = 0, -1
    found = best_f1_thresholds(scores, labels, partial=True)
    assert np.isnan(found.values).tolist() == [False, True, True, False]
    assert (found.f1[1], np.isnan(found.f1[2])) == (0, True)


def test_blocks_of_classes_change_nothing(monkeypatch):
    scores, labels = random_table(5)
    expected = best_f1_thresholds(scores, labels)
    monkeypatch.setattr("mljax.metrics.blocks.BLOCK_BYTES", 0)
    for got, wanted in itertools.zip_longest(best_f1_thresholds(scores, labels), expected):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "1 of 120 are nan"), (np.inf, "1 of 120 are infinite")]
)
def test_scores_that_are_no_numbers_raise(value, message):
    scores, labels = random_table(6)
    scores[3, 2] = value
    with pytest.raises(ValueError, match=f"scores: {message}"):
        best_f1_thresholds(scores, labels)
