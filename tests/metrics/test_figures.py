"""Figures are found by name, in dicts too."""

import pytest

from mljax.metrics.figures import find_figure

FIGURES = {"mAP": 12.5, "images": 3, "partial": True, "overall": {"OF1": None}, "classes": []}


@pytest.mark.parametrize(("name", "value"), [("mAP", 12.5), ("images", 3), ("overall.OF1", None)])
def test_numbers_are_found_by_their_path(name, value):
    assert find_figure(FIGURES, name) == value


@pytest.mark.parametrize("name", ["map", "partial", "classes", "overall", "overall.CF1"])
def test_what_is_no_number_is_refused_with_those_that_are(name):
    with pytest.raises(ValueError, match=rf"'{name}'.*mAP, images, overall\.OF1"):
        find_figure(FIGURES, name)
