"""Sparse labels read as the dense ones that they stand for."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mljax.config.schema import Preprocessing
from mljax.data.partial import simulate
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records
from mljax.data.sparse_labels import SparseLabels

CLASSES = tuple("abcdef")


def _dense(seed, n=7):
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([-1, 0, 1], np.int8), (n, len(CLASSES)), p=[0.7, 0.2, 0.1])


def _sparse(dense, order=None):
    rows, columns = np.nonzero(dense >= 0)
    if order is not None:
        rows, columns = rows[order], columns[order]
    present = dense[rows, columns] == 1
    return SparseLabels.from_annotations(rows, columns, present, shape=dense.shape)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_rows_equal_the_dense_ones_in_whichever_order_the_annotations_come(seed, n):
    dense = _dense(seed, n)
    order = np.random.default_rng(seed).permutation(np.count_nonzero(dense >= 0))
    labels = _sparse(dense, order)
    np.testing.assert_array_equal(np.stack(list(labels)), dense)
    assert (len(labels), labels.shape, labels[0].dtype) == (n, dense.shape, np.int8)
    np.testing.assert_array_equal(labels.annotations(), np.count_nonzero(dense >= 0, axis=1))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_taken_rows_and_columns_equal_the_dense_ones(seed):
    dense = _dense(seed)
    rows = np.random.default_rng(seed).integers(-1, len(dense), 9)
    taken = np.where(rows[:, None] < 0, np.int8(-1), dense[rows])
    np.testing.assert_array_equal(np.stack(list(_sparse(dense).take(rows))), taken)
    columns = np.array([4, 0, 5])
    chosen = np.stack(list(_sparse(dense).with_columns(columns)))
    np.testing.assert_array_equal(chosen, dense[:, columns])


def test_rows_are_taken_alike_in_many_chunks(monkeypatch):
    monkeypatch.setattr("mljax.data.sparse_labels._CHUNK", 2)
    dense, rows = _dense(1), np.array([3, 0, -1, 6, 6])
    taken = np.stack(list(_sparse(dense).take(rows)))
    np.testing.assert_array_equal(taken[[0, 1, 3, 4]], dense[rows[[0, 1, 3, 4]]])


def test_present_wins_over_absent():
    for order in ([0, 1], [1, 0]):
        present = np.array([True, False])[order]
        zeros = np.zeros(2, np.int32)
        labels = SparseLabels.from_annotations(zeros, zeros, present, shape=(1, 2))
        assert labels[0].tolist() == [1, -1]


def test_indices_are_those_of_a_sequence():
    labels = _sparse(_dense(2))
    np.testing.assert_array_equal(labels[-1], labels[np.int32(6)])
    with pytest.raises(IndexError):
        labels[7]


@pytest.mark.parametrize(("num_classes", "bytes_each"), [(256, 2), (257, 3), (70000, 5)])
def test_an_annotation_takes_few_bytes(num_classes, bytes_each):
    rows = np.zeros(100, np.int32)
    labels = SparseLabels.from_annotations(rows, rows, rows == 0, shape=(1, num_classes))
    assert labels.nbytes == 2 * 8 + 100 * bytes_each


def test_batches_hold_the_rows_as_numbers():
    dense = _dense(3)
    records = Records(
        images=np.zeros((7, 4, 4, 3), np.uint8), labels=_sparse(dense), class_names=CLASSES
    )
    with eval_batches(records, preprocessing=Preprocessing(image_size=4), batch_size=4) as batches:
        labels = np.concatenate([batch["labels"] for batch in batches])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels[:7], dense)


def test_labels_can_be_hidden_further():
    dense = _dense(4)
    records = Records(images=["x"] * 7, labels=_sparse(dense), class_names=CLASSES)
    hidden = simulate(records, "fix_per_class", 1).labels
    expected = simulate(
        Records(images=["x"] * 7, labels=dense, class_names=CLASSES), "fix_per_class", 1
    ).labels
    np.testing.assert_array_equal(hidden, expected)


def test_labels_travel_to_other_processes():
    labels = _sparse(_dense(5))
    copy = pickle.loads(pickle.dumps(labels))
    np.testing.assert_array_equal(np.stack(list(copy)), np.stack(list(labels)))
