"""Average precision against the published code, against scikit-learn, and on its limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import (
    average_precision,
    mean_average_precision,
    partial_average_precision,
    partial_mean_average_precision,
)
from tests import golden
from tests.metrics.cases import ASL, KMCL, random_table, read_kmcl


@pytest.mark.parametrize("case", ASL)
def test_average_precision_equals_asl_under_the_stable_tie_rule(case):
    arrays = golden.arrays("asl_metrics", case)
    ap = average_precision(arrays["scores"], arrays["y"])
    np.testing.assert_allclose(ap, arrays["ap_stable_reversed"], atol=1e-7)
    assert (ap <= arrays["ap_best_ties"] + 1e-7).all()
    assert (ap >= arrays["ap_worst_ties"] - 1e-7).all()


@pytest.mark.parametrize("case", [name for name in ASL if not name.startswith("ties")])
def test_mean_average_precision_equals_asl(case):
    arrays = golden.arrays("asl_metrics", case)
    score = mean_average_precision(arrays["scores"], arrays["y"])
    np.testing.assert_allclose(score, arrays["mAP_score"], rtol=1e-7)


def test_partial_average_precision_equals_csl():
    arrays = golden.arrays("asl_metrics", "partial")
    scores, labels = arrays["scores"], arrays["y"]
    ap = partial_average_precision(scores, labels)
    np.testing.assert_allclose(ap, np.where(arrays["ap"] < 0, np.nan, arrays["ap"]), atol=1e-7)
    assert np.isnan(ap).sum() == arrays["counts"].sum()
    mean = partial_mean_average_precision(scores, labels)
    np.testing.assert_allclose(mean, arrays["map"], rtol=1e-6)
    weighted = partial_mean_average_precision(scores, labels, weight_by_positives=True)
    np.testing.assert_allclose(weighted, arrays["map_macro"], rtol=1e-6)


@pytest.mark.parametrize("case", [name for name in KMCL if name != "threshold_exact"])
def test_average_precision_equals_kmcl_without_ties(case):
    scores, labels, ignored, arrays = read_kmcl(case)
    ap = average_precision(scores, labels, ignored=ignored)
    np.testing.assert_allclose(ap, arrays["ap"], rtol=1e-6)
    score = mean_average_precision(scores, labels, ignored=ignored)
    np.testing.assert_allclose(score, arrays["map"], rtol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_average_precision_equals_scikit_learn_without_ties(seed, n):
    scores, labels = random_table(seed, n)
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_average_precision_depends_on_the_ranking_alone(seed):
    scores, labels = random_table(seed)
    order = np.random.default_rng(seed).permutation(len(scores))
    ap = average_precision(scores, labels)
    np.testing.assert_array_equal(average_precision(np.exp(5 * scores) - 7, labels), ap)
    np.testing.assert_array_equal(average_precision(scores[order], labels[order]), ap)


def test_perfect_ranking_gives_100():
    scores, labels = random_table(0)
    assert mean_average_precision(scores + labels, labels) == 100.0
    found = precision_recall_f1(labels.astype(float), labels, threshold=0.5)
    assert [found.OP, found.OR, found.OF1, found.CP, found.CR, found.CF1] == [100.0] * 6


def test_later_image_ranks_first_among_equal_scores():
    scores = np.full((4, 1), 0.5)
    assert average_precision(scores, np.array([[0], [0], [0], [1]]))[0] == 1.0
    assert average_precision(scores, np.array([[1], [0], [0], [0]]))[0] == 0.25


def test_class_without_positive_counts_as_zero_unless_skipped():
    scores, labels = random_table(1)
    labels[:, 0] = 0
    ap = average_precision(scores, labels)
    assert ap[0] == 0
    assert mean_average_precision(scores, labels) == pytest.approx(100 * ap.mean())
    skipped = mean_average_precision(scores, labels, skip_empty_classes=True)
    assert skipped == pytest.approx(100 * ap[1:].mean())


def test_partial_average_precision_is_the_plain_one_on_the_annotated_images():
    scores, labels = random_table(3)
    labels[12:] = -1
    np.testing.assert_array_equal(
        partial_average_precision(scores, labels), average_precision(scores[:12], labels[:12])
    )
    ignored = np.zeros(labels.shape, bool)
    ignored[8:] = True
    np.testing.assert_array_equal(
        partial_average_precision(scores, labels, ignored=ignored),
        average_precision(scores[:8], labels[:8]),
    )


def test_mean_over_no_class_raises():
    scores, labels = random_table(9)
    with pytest.raises(ValueError, match="no class has a positive"):
        mean_average_precision(scores, 0 * labels, skip_empty_classes=True)
    with pytest.raises(ValueError, match="no class has both"):
        partial_mean_average_precision(scores, np.maximum(labels, 1))
