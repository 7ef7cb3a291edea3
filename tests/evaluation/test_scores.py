"""Scores of a whole split: in order, once each, in memory or a file, from one host or several."""

import socket

import jax
import numpy as np
import pytest

from mljax.evaluate import collect_scores, evaluate, evaluate_scores
from mljax.evaluation.multilabel import metrics_json
from tests import miniature


def _labels(n=20, k=4):
    labels = np.random.default_rng(0).integers(0, 2, (n, k)).astype(np.float32)
    labels[0], labels[1] = 0, 1
    return labels


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


def _apply(images):
    number = images[:, 0, 0, :1]
    return np.concatenate([number / 10, -number, 0 * number, number - 5], axis=1)


def test_collected_scores_are_sigmoids_in_the_order_of_the_records():
    labels = _labels()
    scores, collected, ignored, skipped = collect_scores(_apply, _batches(labels))
    np.testing.assert_array_equal(collected, labels)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 0], jax.nn.sigmoid(np.arange(20) / 10), rtol=1e-6)
    assert ignored is None
    assert skipped == []


def test_skipped_images_are_left_out_and_named():
    labels = _labels()
    mask = labels > 0
    batches = _batches(labels, invalid=[3, 17], ignored=mask)
    scores, collected, ignored, skipped = collect_scores(_apply, batches)
    assert skipped == [3, 17]
    assert len(scores) == 18
    np.testing.assert_array_equal(collected, np.delete(labels, [3, 17], axis=0))
    np.testing.assert_array_equal(ignored, np.delete(mask, [3, 17], axis=0))


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("limit", [0, 100])
def test_what_is_too_large_for_memory_is_mapped_and_equal_to_the_last_bit(
    monkeypatch, networks, limit
):
    def apply(images):
        logits = np.stack([_apply(images) * (v + 1) for v in range(networks)])
        return logits if networks > 1 else logits[0]

    def collect():
        labels = _labels()
        labels[::3, 1] = -1
        batches = _batches(labels, invalid=[3, 17], ignored=labels > 0)
        return collect_scores(apply, batches)

    in_memory = collect()
    monkeypatch.setattr("mljax.evaluate.MAX_IN_MEMORY", limit)
    mapped = collect()
    assert isinstance(mapped[0], np.memmap)
    assert not isinstance(in_memory[0], np.memmap)
    assert [isinstance(array, np.memmap) for array in mapped[1:3]] == [limit == 0] * 2
    for one, other in zip(in_memory[:3], mapped[:3], strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    assert in_memory[3] == mapped[3]


def test_files_of_mapped_scores_have_no_name(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("mljax.evaluate.MAX_IN_MEMORY", 0)
    labels = _labels()
    scores, *_ = collect_scores(_apply, _batches(labels))
    assert isinstance(scores, np.memmap)
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_no_file_open(monkeypatch):
    monkeypatch.setattr("mljax.evaluate.MAX_IN_MEMORY", 0)
    labels = _labels()
    batches = _batches(labels)

    def failing():
        yield next(batches)
        raise OSError("disk")

    # An open file would warn, and warnings are errors.
    with pytest.raises(OSError, match="disk"):
        collect_scores(_apply, failing())


def test_every_host_gets_the_rows_of_all_in_the_order_of_the_records(monkeypatch):
    labels = _labels(19)
    whole = collect_scores(_apply, _batches(labels, invalid=[3, 17], ignored=labels > 0))

    def slices(host):
        rows = slice(4 * host, 4 * host + 4)
        for batch in _batches(labels, invalid=[3, 17], ignored=labels > 0):
            yield {key: value[rows] for key, value in batch.items()}

    monkeypatch.setattr("jax.process_count", lambda: 2)
    sent = []
    gather = "mljax.evaluate.multihost_utils.process_allgather"
    monkeypatch.setattr(gather, lambda rows, tiled: sent.append(dict(rows)) or rows)
    collect_scores(_apply, slices(1))
    others = iter(sent)

    def allgather(rows, tiled):
        second = next(others)
        return {key: np.concatenate([value, second[key]]) for key, value in rows.items()}

    monkeypatch.setattr(gather, allgather)
    gathered = collect_scores(_apply, slices(0))
    for one, other in zip(whole[:3], gathered[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole[3] == gathered[3]


def test_extreme_logits_give_scores_of_zero_and_one():
    labels = _labels()
    scores, *_ = collect_scores(lambda x: 1e4 * (_apply(x) - 0.55), _batches(labels))
    assert set(np.unique(scores)) == {0.0, 1.0}


def test_nothing_to_evaluate_raises():
    labels = _labels(3)
    with pytest.raises(ValueError, match="all 3 images were skipped"):
        collect_scores(_apply, _batches(labels, invalid=[0, 1, 2]))
    with pytest.raises(ValueError, match="there is no batch"):
        collect_scores(_apply, [])


@pytest.mark.parametrize("partial", [False, True])
def test_figures_of_mapped_arrays_equal_those_in_memory(monkeypatch, partial):
    labels = _labels()
    if partial:
        labels[5:, 0] = -1
    in_memory = collect_scores(_apply, _batches(labels, ignored=labels > 0))
    monkeypatch.setattr("mljax.evaluate.MAX_IN_MEMORY", 0)
    monkeypatch.setattr("mljax.metrics.blocks.BLOCK_BYTES", 0)
    mapped = collect_scores(_apply, _batches(labels, ignored=labels > 0))
    names = ["a", "b", "c", "d"]
    figures = [
        metrics_json(evaluate_scores(scores, found, ignored=ignored, threshold=0.5, top_k=2), names)
        for scores, found, ignored, _ in (in_memory, mapped)
    ]
    assert figures[0] == figures[1]
    assert figures[0]["partial_labels"] == partial


OF_TWO = """
import sys
import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from mljax.evaluate import evaluate
from tests import miniature

found, _, _ = evaluate(miniature.model(), miniature.recipe().data, split="val")
print(f"{len(found.scores)} images, mAP {found.mean_average_precision:.4f}")
"""


@pytest.mark.slow
def test_two_processes_count_each_image_once():
    data = miniature.recipe().data
    alone, _, _ = evaluate(miniature.model(), data, split="val")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [miniature.start("-c", OF_TWO, address, i) for i in range(2)]
    shown = [process.communicate(timeout=300)[0] for process in pair]
    for text in shown:
        assert f"20 images, mAP {alone.mean_average_precision:.4f}" in text
