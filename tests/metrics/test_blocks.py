"""Tables of scores and labels: read in blocks, of any type, and refused where they are none."""

import jax.numpy as jnp
import numpy as np
import pytest

from mljax.metrics.blocks import count_labels
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import (
    average_precision,
    mean_average_precision,
    partial_average_precision,
    partial_mean_average_precision,
)
from tests.metrics.cases import random_table


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
    scores, labels = random_table(11, n=40, k=7)
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


def test_ignored_entries_are_left_out_of_every_metric():
    scores, labels = random_table(2)
    ignored = np.zeros(labels.shape, bool)
    ignored[10:] = True
    ap = average_precision(scores, labels, ignored=ignored)
    np.testing.assert_array_equal(ap, average_precision(scores[:10], labels[:10]))
    found = precision_recall_f1(scores, labels, ignored=ignored, threshold=0.5)
    expected = precision_recall_f1(scores[:10], labels[:10], threshold=0.5)
    np.testing.assert_array_equal(found.f1, expected.f1)
    assert found.OF1 == expected.OF1


def test_labels_are_counted_by_kind():
    labels = np.array([[1, 0], [1, -1], [0, -1], [-1, 1]])
    counts = count_labels(labels)
    assert [count.tolist() for count in counts] == [[2, 1], [1, 1], [1, 2]]
    counts = count_labels(labels, ignored=labels == [[1, -1]])
    assert [count.tolist() for count in counts] == [[0, 1], [1, 1], [1, 0]]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16, int])
def test_jax_arrays_and_other_types_give_the_figures_of_numpy_arrays(dtype):
    scores, labels = random_table(7)
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
    arguments = change(*random_table(8))
    for metric in (average_precision, mean_average_precision, precision_recall_f1):
        with pytest.raises(ValueError, match=message):
            metric(*arguments)
