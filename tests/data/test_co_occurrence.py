"""Labels that occur together, counted and read."""

import numpy as np
import pytest

from mljax.data.co_occurrence import (
    _CHUNK,
    co_occurrence,
    conditional_probabilities,
    read_probabilities,
)
from mljax.data.sparse_labels import SparseLabels

LABELS = np.array([[1, 1, 0], [1, 0, -1], [1, 1, -1]], np.int8)


def test_pairs_are_counted_over_images():
    pairs, counts = co_occurrence(LABELS)
    np.testing.assert_array_equal(pairs, [[0, 2, 0], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(counts, [3, 2, 0])
    # A class without instances has no company, where 0 / 0 would be nan.
    expected = [[0, 2 / 3, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(conditional_probabilities(pairs, counts), expected)


def test_any_number_of_rows_and_sparse_labels_are_counted():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (_CHUNK + 3, 4)).astype(np.int8)
    present = (labels == 1).astype(int)
    rows, columns = np.nonzero(labels >= 0)
    sparse = SparseLabels.from_annotations(
        rows, columns, labels[rows, columns] == 1, shape=labels.shape
    )
    for given in (labels, sparse):
        pairs, counts = co_occurrence(given)
        np.testing.assert_array_equal(pairs + np.diag(counts), present.T @ present)


def test_probabilities_or_counts_come_from_a_file(tmp_path):
    pairs, counts = co_occurrence(LABELS)
    expected = conditional_probabilities(pairs, counts)
    np.savez(tmp_path / "counts.npz", adj=pairs, nums=counts)
    # The original has nan for a class without instances.
    nan = np.where(counts[:, None] > 0, expected, np.nan)
    np.save(tmp_path / "adj_matrix.npy", nan)
    for name in ("counts.npz", "adj_matrix.npy"):
        np.testing.assert_array_equal(read_probabilities(tmp_path / name, 3), expected)
    with pytest.raises(ValueError, match=r"got .*\(3, 3\).* for 4 classes"):
        read_probabilities(tmp_path / "adj_matrix.npy", 4)
    np.save(tmp_path / "below.npy", -nan)
    with pytest.raises(ValueError, match="no number below 0"):
        read_probabilities(tmp_path / "below.npy", 3)
    np.savez(tmp_path / "others.npz", a=pairs)
    with pytest.raises(ValueError, match="holds a; expected probabilities"):
        read_probabilities(tmp_path / "others.npz", 3)
