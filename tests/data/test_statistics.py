"""Statistics of the labels of a split."""

import numpy as np
import pytest

from mljax.data.statistics import present_shares


def test_shares_count_present_labels_among_all_images():
    labels = np.array([[1, 0, -1], [1, -1, -1], [0, 1, -1], [-1, 1, -1]], np.int8)
    np.testing.assert_array_equal(present_shares(labels), [0.5, 0.5, 0])


def test_shares_of_many_images_are_read_from_evenly_spaced_rows():
    labels = np.zeros((1000, 1), np.int8)
    labels[:500] = 1
    assert present_shares(labels, most=11)[0] == pytest.approx(5.5 / 11, abs=0.05)
