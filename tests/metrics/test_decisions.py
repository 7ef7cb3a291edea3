"""Precision, recall and F1 against the published code, and on their limits."""

import numpy as np
import pytest

from mljax.metrics.decisions import precision_recall_f1
from tests import golden
from tests.metrics.cases import ASL, KMCL, random_table, read_kmcl

ASL_FIELDS = {
    "OP": "p_o",
    "OR": "r_o",
    "OF1": "f_o",
    "CP": "mean_p_c",
    "CR": "mean_r_c",
    "CF1": "mean_f_c",
}


KMCL_ARGUMENTS = {
    "inclusive": True,
    "count_unpredicted_classes": True,
    "harmonic_class_f1": True,
}


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


# Its rows of four equal scores make the reference's top three arbitrary.
KMCL_TOP_3 = [(name, 3) for name in KMCL if name != "threshold_exact"]


@pytest.mark.parametrize("case, top_k", [(name, None) for name in KMCL] + KMCL_TOP_3)
def test_precision_recall_f1_equals_kmcl(case, top_k):
    scores, labels, _, arrays = read_kmcl(case)
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


def test_ignored_admits_unannotated_labels():
    scores, labels = random_table(4)
    labels[12:] = -1
    found = precision_recall_f1(scores, labels, ignored=labels < 0, threshold=0.5)
    assert found.OP == precision_recall_f1(scores[:12], labels[:12], threshold=0.5).OP


def test_partial_leaves_unannotated_labels_out():
    scores, labels = random_table(4)
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
    scores, labels = random_table(4)
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
    scores, labels = random_table(5)
    unlimited = precision_recall_f1(scores, labels, threshold=0.5)
    assert precision_recall_f1(scores, labels, threshold=0.5, top_k=4).OF1 == unlimited.OF1
    assert precision_recall_f1(scores, labels, threshold=0.5, top_k=9).OF1 == unlimited.OF1


def test_harmonic_class_f1_comes_from_the_class_means():
    scores, labels = random_table(6)
    mean = precision_recall_f1(scores, labels, threshold=0.5)
    harmonic = precision_recall_f1(scores, labels, threshold=0.5, harmonic_class_f1=True)
    assert mean.CF1 == pytest.approx(mean.f1.mean())
    assert harmonic.CF1 == pytest.approx(2 / (1 / mean.CP + 1 / mean.CR))


def test_top_k_below_one_raises():
    with pytest.raises(ValueError, match="top_k: got 0"):
        precision_recall_f1(*random_table(10), top_k=0)


def test_means_over_images_are_those_of_the_transposed_table():
    scores, labels = random_table(7)
    found = precision_recall_f1(scores, labels, threshold=0.5)
    expected = precision_recall_f1(scores.T, labels.T, threshold=0.5)
    assert (found.IP, found.IR, found.IF1) == (expected.CP, expected.CR, expected.CF1)


def test_an_image_without_annotation_is_left_out_of_the_means_over_images(monkeypatch):
    scores, labels = random_table(8)
    labels[3] = -1
    found = precision_recall_f1(scores, labels, partial=True, threshold=0.5)
    rest = np.arange(len(labels)) != 3
    expected = precision_recall_f1(scores[rest], labels[rest], threshold=0.5)
    assert (found.IP, found.IR, found.IF1) == (expected.IP, expected.IR, expected.IF1)
    monkeypatch.setattr("mljax.metrics.blocks.BLOCK_BYTES", 0)
    blocks = precision_recall_f1(scores, labels, partial=True, threshold=0.5)
    assert (found.IP, found.IR, found.IF1) == (blocks.IP, blocks.IR, blocks.IF1)
