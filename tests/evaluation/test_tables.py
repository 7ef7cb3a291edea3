"""Which classes a table shows."""

import numpy as np

from mljax.evaluation.tables import MAX_CLASSES, extremes


def test_few_classes_are_shown_in_their_order():
    values = np.linspace(1, 0, MAX_CLASSES)
    assert extremes(values) == list(range(MAX_CLASSES))


def test_of_many_classes_both_ends_are_shown_and_nan_is_last():
    values = np.arange(MAX_CLASSES + 30.0)[::-1].copy()
    values[5] = np.nan
    found = extremes(values)
    assert len(found) == MAX_CLASSES
    assert found[0] == MAX_CLASSES + 29
    assert found[-2:] == [0, 5]
