"""Evaluation in memory, and the command on a miniature checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.evaluate import collect_scores, evaluate_scores
from mljax.metrics import average_precision, partial_average_precision, precision_recall_f1


def _scores_and_labels(n=20, k=4):
    rng = np.random.default_rng(0)
    scores = rng.random((n, k)).astype(np.float32)
    labels = rng.integers(0, 2, (n, k)).astype(np.float32)
    labels[0], labels[1] = 0, 1
    return scores, labels


def _batches(labels, *, invalid=(), ignored=None, size=8):
    """Yields images that hold their record's number, padded as `eval_batches` pads."""
    index = np.arange(-(-len(labels) // size) * size)
    index[len(labels) :] = -1
    for rows in index.reshape(-1, size):
        valid = (rows >= 0) & ~np.isin(rows, invalid)
        images = np.broadcast_to(rows[:, None, None, None], (size, 2, 2, 3)).astype(np.float32)
        batch = {"images": images, "valid": valid, "index": rows}
        batch["labels"] = np.where(valid[:, None], labels[rows], 0).astype(np.float32)
        if ignored is not None:
            batch["ignored"] = ignored[rows] & valid[:, None]
        yield batch


def _score(batch):
    number = jnp.asarray(batch["images"][:, 0, 0, :1])
    logits = jnp.concatenate([number / 10, -number, 0 * number, number - 5], axis=1)
    rest = {key: value for key, value in batch.items() if key != "images"}
    return rest | {"scores": jax.nn.sigmoid(logits)}


def test_collected_scores_are_in_the_order_of_the_records_without_the_padding():
    _, labels = _scores_and_labels()
    batches = reversed(list(_batches(labels)))
    scores, collected, ignored, skipped = collect_scores(_score, batches)
    np.testing.assert_array_equal(collected, labels)
    np.testing.assert_allclose(scores[:, 0], jax.nn.sigmoid(jnp.arange(20) / 10), rtol=1e-6)
    assert ignored is None
    assert skipped == []


def test_skipped_images_are_left_out_and_named():
    _, labels = _scores_and_labels()
    mask = labels > 0
    batches = _batches(labels, invalid=[3, 17], ignored=mask)
    scores, collected, ignored, skipped = collect_scores(_score, batches)
    assert skipped == [3, 17]
    assert len(scores) == 18
    np.testing.assert_array_equal(collected, np.delete(labels, [3, 17], axis=0))
    np.testing.assert_array_equal(ignored, np.delete(mask, [3, 17], axis=0))


def test_nothing_to_evaluate_raises():
    _, labels = _scores_and_labels(3)
    with pytest.raises(ValueError, match="all 3 images were skipped"):
        collect_scores(_score, _batches(labels, invalid=[0, 1, 2]))
    with pytest.raises(ValueError, match="there is no batch"):
        collect_scores(_score, [])


def test_evaluation_holds_the_metrics_of_complete_labels():
    scores, labels = _scores_and_labels()
    ignored = scores > 0.95
    found = evaluate_scores(scores, labels, ignored=ignored, threshold=0.5, top_k=2)
    ap = average_precision(scores, labels, ignored=ignored)
    assert not found.partial
    np.testing.assert_array_equal(found.average_precision, ap)
    assert found.mean_average_precision == pytest.approx(100 * ap.mean())
    options = {"ignored": ignored, "threshold": 0.5}
    assert found.overall.OF1 == precision_recall_f1(scores, labels, **options).OF1
    assert found.top.CF1 == precision_recall_f1(scores, labels, top_k=2, **options).CF1
    assert found.top.OR < found.overall.OR


def test_evaluation_of_partial_labels_counts_annotated_entries():
    scores, labels = _scores_and_labels()
    labels[5:, 0] = -1
    labels[:, 1] = -1
    found = evaluate_scores(scores, labels, threshold=0.5)
    assert found.partial
    ap = partial_average_precision(scores, labels)
    np.testing.assert_array_equal(found.average_precision, ap)
    assert np.isnan(ap).tolist() == [False, True, False, False]
    assert found.mean_average_precision == pytest.approx(100 * np.nanmean(ap))
    expected = precision_recall_f1(scores, labels, ignored=labels < 0, threshold=0.5)
    assert found.overall.OF1 == expected.OF1


def test_evaluation_that_partial_labels_leave_undefined_is_nan():
    scores, labels = _scores_and_labels()
    assert np.isnan(evaluate_scores(scores, np.where(labels > 0, 1, -1)).mean_average_precision)
