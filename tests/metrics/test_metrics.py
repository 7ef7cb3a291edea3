"""Metrics against the published code's figures, against scikit-learn, and on their limits."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from mljax.metrics.blocks import count_labels
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import (
    average_precision,
    mean_average_precision,
    partial_average_precision,
    partial_mean_average_precision,
)
from tests import golden

ASL = [name for name in golden.names("asl_metrics") if name != "partial"]
ASL_FIELDS = {
    "OP": "p_o",
    "OR": "r_o",
    "OF1": "f_o",
    "CP": "mean_p_c",
    "CR": "mean_r_c",
    "CF1": "mean_f_c",
}
KMCL = golden.names("kmcl_meters")
KMCL_ARGUMENTS = {
    "inclusive": True,
    "count_unpredicted_classes": True,
    "harmonic_class_f1": True,
}


def _random(seed, n=30, k=4):
    """Returns scores without ties, and labels with both kinds in every class."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(n * k).reshape(n, k) / (n * k)
    labels = rng.integers(0, 2, (n, k))
    labels[0], labels[1] = 0, 1
    return scores, labels


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


@pytest.mark.parametrize("case", ASL)
def test_precision_recall_f1_equals_asl(case):
    arrays = golden.arrays("asl_metrics", case)
    threshold = golden.cases("asl_metrics")[case]["hyper"]["thre"]
    found = precision_recall_f1(arrays["scores"], arrays["y"], threshold=threshold)
    for name, key in ASL_FIELDS.items():
        # Nothing predicted is 0 / 0 there: nan.
        np.testing.assert_allclose(getattr(found, name), np.nan_to_num(arrays[key]), rtol=1e-6)
    hits, positives = arrays["tp"], arrays["tp"] + arrays["fn"]
    np.testing.assert_allclose(found.recall, 100 * hits / np.maximum(positives, 1))
    np.testing.assert_allclose(
        found.precision, 100 * hits / np.maximum(arrays["tp"] + arrays["fp"], 1)
    )


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


def _kmcl(case):
    """Returns the case's scores, labels, difficult mask (where the meter skips it) and arrays."""
    extra, arrays = golden.cases("kmcl_meters")[case]["extra"], golden.arrays("kmcl_meters", case)
    scores = arrays.get("scores")
    if scores is None:
        scores = golden.fill_input(*extra["scores"]["fill_input"])
    targets = arrays["targets"]
    ignored = targets == 0 if extra["difficult_example"] else None
    return scores, (targets > 0).astype(int), ignored, arrays


@pytest.mark.parametrize("case", [name for name in KMCL if name != "threshold_exact"])
def test_average_precision_equals_kmcl_without_ties(case):
    scores, labels, ignored, arrays = _kmcl(case)
    ap = average_precision(scores, labels, ignored=ignored)
    np.testing.assert_allclose(ap, arrays["ap"], rtol=1e-6)
    score = mean_average_precision(scores, labels, ignored=ignored)
    np.testing.assert_allclose(score, arrays["map"], rtol=1e-6)


# Its rows of four equal scores make the reference's top three arbitrary.
KMCL_TOP_3 = [(name, 3) for name in KMCL if name != "threshold_exact"]


@pytest.mark.parametrize("case, top_k", [(name, None) for name in KMCL] + KMCL_TOP_3)
def test_precision_recall_f1_equals_kmcl(case, top_k):
    scores, labels, _, arrays = _kmcl(case)
    found = precision_recall_f1(scores, labels, top_k=top_k, **KMCL_ARGUMENTS)
    key = "top3" if top_k else "overall"
    names = ["OP", "OR", "OF1", "CP", "CR", "CF1"]
    expected = dict(zip(names, 100 * arrays[key], strict=True))
    if not labels.any(axis=0).all():
        # Recall of a class without a positive is 0 / 0: nan there, which turns CF1 into 0.
        assert np.isnan(expected.pop("CR"))
        assert expected.pop("CF1") == 0
        expected = {name: np.nan_to_num(value) for name, value in expected.items()}
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-9, err_msg=name)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60))
@settings(max_examples=30, deadline=None)
def test_average_precision_equals_scikit_learn_without_ties(seed, n):
    scores, labels = _random(seed, n)
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(4)]
    np.testing.assert_allclose(average_precision(scores, labels), expected, rtol=1e-12)


def _everything(scores, labels, ignored):
    """Returns every figure of the metrics."""
    partial = np.where(np.arange(labels.size).reshape(labels.shape) % 3, labels, -1)
    found = [
        average_precision(scores, labels, ignored=ignored),
        mean_average_precision(scores, labels, ignored=ignored, skip_empty_classes=True),
        partial_average_precision(scores, partial, ignored=ignored),
        partial_mean_average_precision(scores, partial, ignored=ignored, weight_by_positives=True),
        *count_labels(partial, ignored=ignored),
    ]
    for chosen, is_partial in ((labels, False), (partial, True)):
        figures = precision_recall_f1(
            scores, chosen, ignored=ignored, partial=is_partial, threshold=0.3, top_k=3
        )
        found += vars(figures).values()
    return found


@pytest.mark.parametrize("block", [0, 16 * 7, 16 * 60])
@pytest.mark.parametrize("with_ignored", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64, "memmap"])
def test_figures_are_the_same_to_the_last_bit_in_blocks(
    monkeypatch, tmp_path, block, with_ignored, kind
):
    scores, labels = _random(11, n=40, k=7)
    # Ties, within a class and within an image.
    scores = np.round(scores, 1)
    ignored = scores == 0.5 if with_ignored else None
    if kind == "memmap":
        mapped = np.memmap(tmp_path / "scores", scores.dtype, "w+", shape=scores.shape)
        mapped[:] = scores
        scores = mapped
    else:
        scores = scores.astype(kind)
    whole = _everything(np.array(scores), labels, ignored)
    monkeypatch.setattr("mljax.metrics.blocks.BLOCK_BYTES", block)
    for one, other in zip(whole, _everything(scores, labels, ignored), strict=True):
        np.testing.assert_array_equal(one, other)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_average_precision_depends_on_the_ranking_alone(seed):
    scores, labels = _random(seed)
    order = np.random.default_rng(seed).permutation(len(scores))
    ap = average_precision(scores, labels)
    np.testing.assert_array_equal(average_precision(np.exp(5 * scores) - 7, labels), ap)
    np.testing.assert_array_equal(average_precision(scores[order], labels[order]), ap)


def test_perfect_ranking_gives_100():
    scores, labels = _random(0)
    assert mean_average_precision(scores + labels, labels) == 100.0
    found = precision_recall_f1(labels.astype(float), labels, threshold=0.5)
    assert [found.OP, found.OR, found.OF1, found.CP, found.CR, found.CF1] == [100.0] * 6


def test_later_image_ranks_first_among_equal_scores():
    scores = np.full((4, 1), 0.5)
    assert average_precision(scores, np.array([[0], [0], [0], [1]]))[0] == 1.0
    assert average_precision(scores, np.array([[1], [0], [0], [0]]))[0] == 0.25


def test_class_without_positive_counts_as_zero_unless_skipped():
    scores, labels = _random(1)
    labels[:, 0] = 0
    ap = average_precision(scores, labels)
    assert ap[0] == 0
    assert mean_average_precision(scores, labels) == pytest.approx(100 * ap.mean())
    skipped = mean_average_precision(scores, labels, skip_empty_classes=True)
    assert skipped == pytest.approx(100 * ap[1:].mean())


def test_ignored_entries_are_left_out_of_every_metric():
    scores, labels = _random(2)
    ignored = np.zeros(labels.shape, bool)
    ignored[10:] = True
    ap = average_precision(scores, labels, ignored=ignored)
    np.testing.assert_array_equal(ap, average_precision(scores[:10], labels[:10]))
    found = precision_recall_f1(scores, labels, ignored=ignored, threshold=0.5)
    expected = precision_recall_f1(scores[:10], labels[:10], threshold=0.5)
    np.testing.assert_array_equal(found.f1, expected.f1)
    assert found.OF1 == expected.OF1


def test_partial_average_precision_is_the_plain_one_on_the_annotated_images():
    scores, labels = _random(3)
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


def test_ignored_admits_unannotated_labels():
    scores, labels = _random(4)
    labels[12:] = -1
    found = precision_recall_f1(scores, labels, ignored=labels < 0, threshold=0.5)
    assert found.OP == precision_recall_f1(scores[:12], labels[:12], threshold=0.5).OP


def test_partial_leaves_unannotated_labels_out():
    scores, labels = _random(4)
    labels[12:] = -1
    ignored = scores > 0.9
    found = precision_recall_f1(scores, labels, ignored=ignored, partial=True, threshold=0.5)
    expected = precision_recall_f1(
        scores, labels, ignored=ignored | (labels < 0), threshold=0.5, top_k=4
    )
    np.testing.assert_array_equal(found.f1, expected.f1)
    assert found.OF1 == expected.OF1


@pytest.mark.parametrize("harmonic", [False, True])
def test_a_class_without_annotation_is_left_out_of_the_means_over_classes(harmonic):
    scores, labels = _random(4)
    labels[:, 1] = -1
    options = {"partial": True, "threshold": 0.5, "harmonic_class_f1": harmonic}
    found = precision_recall_f1(scores, labels, **options)
    others = np.arange(labels.shape[1]) != 1
    expected = precision_recall_f1(scores[:, others], labels[:, others], **options)
    for name in ("OP", "OR", "OF1", "CP", "CR", "CF1"):
        assert getattr(found, name) == getattr(expected, name)
    assert np.isnan([found.precision[1], found.recall[1], found.f1[1]]).all()


def test_means_over_no_class_are_nan():
    found = precision_recall_f1(np.zeros((2, 3)), np.full((2, 3), -1), partial=True)
    assert np.isnan([found.CP, found.CR, found.CF1]).all()


def test_labels_are_counted_by_kind():
    labels = np.array([[1, 0], [1, -1], [0, -1], [-1, 1]])
    counts = count_labels(labels)
    assert [count.tolist() for count in counts] == [[2, 1], [1, 1], [1, 2]]
    counts = count_labels(labels, ignored=labels == [[1, -1]])
    assert [count.tolist() for count in counts] == [[0, 1], [1, 1], [1, 0]]


def test_threshold_is_strict_unless_inclusive_in_the_precision_of_the_scores():
    scores, labels = np.full((1, 1), 0.8, np.float32), np.ones((1, 1))
    assert precision_recall_f1(scores, labels, threshold=0.8).OR == 0
    assert precision_recall_f1(scores, labels, threshold=0.8, inclusive=True).OR == 100


def test_top_k_takes_the_highest_scores_and_the_lower_class_among_equal_ones():
    scores = np.array([[0.9, 0.7, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4], [0.6, 0.6, 0.6, 0.6]])
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
    found = precision_recall_f1(scores, labels, threshold=0.0, top_k=2)
    assert (found.OP, found.OR) == (100.0, 100.0)


def test_top_k_of_all_classes_or_more_changes_nothing():
    scores, labels = _random(5)
    unlimited = precision_recall_f1(scores, labels, threshold=0.5)
    assert precision_recall_f1(scores, labels, threshold=0.5, top_k=4).OF1 == unlimited.OF1
    assert precision_recall_f1(scores, labels, threshold=0.5, top_k=9).OF1 == unlimited.OF1


def test_harmonic_class_f1_comes_from_the_class_means():
    scores, labels = _random(6)
    mean = precision_recall_f1(scores, labels, threshold=0.5)
    harmonic = precision_recall_f1(scores, labels, threshold=0.5, harmonic_class_f1=True)
    assert mean.CF1 == pytest.approx(mean.f1.mean())
    assert harmonic.CF1 == pytest.approx(2 / (1 / mean.CP + 1 / mean.CR))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16, int])
def test_jax_arrays_and_other_types_give_the_figures_of_numpy_arrays(dtype):
    scores, labels = _random(7)
    rounded = jnp.asarray(100 * scores, dtype)
    expected = mean_average_precision(np.asarray(rounded, np.float32), labels)
    assert mean_average_precision(rounded, jnp.asarray(labels)) == expected


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s, y: (s[0], y[0]), r"got \(4,\), \(4,\)"),
        (lambda s, y: (s[:, :3], y), r"got \(30, 3\), \(30, 4\)"),
        (lambda s, y: (s[:0], y[:0]), r"got \(0, 4\)"),
        (lambda s, y: (np.where(s > 0.9, np.nan, s), y), "11 of 120 are nan"),
        (lambda s, y: (s, 2 * y), "of 120 are neither 1"),
        (lambda s, y: (s, np.where(s < 0.05, -1, y)), "6 of 120 are -1 .*partial_average_prec"),
    ],
)
def test_what_is_no_score_or_label_raises(change, message):
    arguments = change(*_random(8))
    for metric in (average_precision, mean_average_precision, precision_recall_f1):
        with pytest.raises(ValueError, match=message):
            metric(*arguments)


def test_mean_over_no_class_raises():
    scores, labels = _random(9)
    with pytest.raises(ValueError, match="no class has a positive"):
        mean_average_precision(scores, 0 * labels, skip_empty_classes=True)
    with pytest.raises(ValueError, match="no class has both"):
        partial_mean_average_precision(scores, np.maximum(labels, 1))


def test_top_k_below_one_raises():
    with pytest.raises(ValueError, match="top_k: got 0"):
        precision_recall_f1(*_random(10), top_k=0)
