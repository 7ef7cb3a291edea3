"""Several sets of weights of one network side by side."""

import math

import numpy as np
import pytest

from mljax.data.records import Classes
from mljax.evaluation.weights import Found, better_weights, evaluate_weights, scalars, shown
from tests.evaluation.batches import Recorder, apply, make_batches, make_labels


def _found(**figures):
    """Returns what was found of weights by name, each with its mAP."""
    return {
        name: Found(figures={"mAP": value, "images": 3, "rows": [1]}, evaluators=(), bad_images=0)
        for name, value in figures.items()
    }


def test_each_set_of_weights_has_fresh_evaluators_and_the_same_images():
    made = []

    def make():
        made.append(Recorder())
        return made[-1]

    classes = Classes(names=("a", "b", "c", "d"))
    batches = make_batches(make_labels(), invalid=[3, 17])
    found = evaluate_weights({"plain": apply, "averaged": apply}, [make], batches, classes)
    assert [each.figures for each in found.values()] == [{"images": 18}] * 2
    assert [each.bad_images for each in found.values()] == [2, 2]
    assert [each.evaluators for each in found.values()] == [[recorder] for recorder in made]
    assert all(recorder.classes is classes for recorder in made)
    first, second = (recorder.joined()["index"] for recorder in made)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"plain": 1.0, "averaged": 2.0}, ("averaged", 2.0)),
        ({"plain": 2.0, "averaged": 1.0}, ("plain", 2.0)),
        ({"plain": 2.0, "averaged": 2.0}, ("plain", 2.0)),
        ({"plain": None, "averaged": 0.0}, ("averaged", 0.0)),
        ({"plain": None}, ("plain", None)),
    ],
)
def test_the_better_weights_have_the_higher_figure_and_undefined_is_worst(figures, expected):
    assert better_weights(_found(**figures), "mAP") == expected


def test_a_figure_that_no_evaluator_gives_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="'loss'; there are mAP, images"):
        better_weights(_found(plain=1.0), "loss")
    with pytest.raises(ValueError, match="'rows'"):
        better_weights(_found(plain=1.0), "rows")


def test_scalars_are_the_numbers_by_weights():
    found = scalars(_found(plain=1.5, averaged=None))
    assert found.keys() == {"eval/mAP_plain", "eval/mAP_averaged"}
    assert found["eval/mAP_plain"] == 1.5
    assert math.isnan(found["eval/mAP_averaged"])


def test_the_line_for_people_has_each_figure():
    assert shown(_found(plain=1.5, averaged=None), "mAP") == "mAP plain 1.50, averaged nan"
    partial = {"mAP": 1.0, "partial_labels": True}
    line = shown({"plain": Found(figures=partial, evaluators=(), bad_images=2)}, "mAP")
    assert "over annotated labels" in line and "2 bad images skipped" in line
