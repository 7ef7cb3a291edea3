"""Rows of many images, in memory or a file, and scores of logits."""

import jax
import numpy as np
import pytest

from mljax.evaluation import scores
from mljax.evaluation.scores import Rows, sigmoid

PARTS = [np.arange(12, dtype=np.float32).reshape(4, 3), np.full((1, 3), 7, np.float32)]


def _rows(parts):
    rows = Rows()
    for part in parts:
        rows.append(part)
    return rows.array()


@pytest.mark.parametrize("limit", [0, 50])
@pytest.mark.parametrize("kind", [np.float32, np.int8, bool])
def test_what_is_too_large_for_memory_is_mapped_and_equal_to_the_last_bit(monkeypatch, kind, limit):
    parts = [part.astype(kind) for part in PARTS * 5]
    in_memory = _rows(parts)
    monkeypatch.setattr(scores, "MAX_IN_MEMORY", limit)
    mapped = _rows(parts)
    assert isinstance(mapped, np.memmap)
    assert not isinstance(in_memory, np.memmap)
    assert (mapped.dtype, mapped.shape) == (in_memory.dtype, in_memory.shape) == (kind, (25, 3))
    np.testing.assert_array_equal(mapped, in_memory)
    np.testing.assert_array_equal(mapped, np.concatenate(parts))


def test_rows_that_fit_stay_in_memory(monkeypatch):
    monkeypatch.setattr(scores, "MAX_IN_MEMORY", sum(part.nbytes for part in PARTS))
    assert not isinstance(_rows(PARTS), np.memmap)


def test_files_of_mapped_rows_have_no_name(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(scores, "MAX_IN_MEMORY", 0)
    assert isinstance(_rows(PARTS), np.memmap)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_given_up_leave_no_file_open(monkeypatch):
    monkeypatch.setattr(scores, "MAX_IN_MEMORY", 0)
    rows = Rows()
    rows.append(PARTS[0])
    # An open file would warn, and warnings are errors.
    del rows


def test_scores_are_sigmoids():
    logits = np.linspace(-20, 20, 9, dtype=np.float32)
    found = sigmoid(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, jax.nn.sigmoid(logits), rtol=1e-6)


def test_extreme_logits_give_scores_of_zero_and_one():
    assert sigmoid(np.array([-1e4, 1e4, -1e30], np.float32)).tolist() == [0, 1, 0]
