"""Rules that end a run after an evaluation."""

import pytest

from mljax.config import from_json, to_json
from mljax.training.progress import Progress
from mljax.training.stopping import NoImprovement, SmoothedImprovement
from tests import golden


def _answers(rule, figures):
    return [rule.update({"mAP": figure}) for figure in figures]


@pytest.mark.parametrize(
    ("kwargs", "figures", "stops"),
    [
        ({"patience": 0}, [1.0, 2.0, 2.0], [False, False, True]),
        ({"patience": 2}, [5.0, 4.0, 4.0, 4.0], [False, False, False, True]),
        ({"patience": 1}, [5.0, 4.0, 6.0, 5.0, 6.0], [False, False, False, False, True]),
        ({"patience": 0, "min_delta": 0.5}, [1.0, 1.6, 2.1], [False, False, True]),
        # An undefined figure is no improvement, and none to improve on.
        ({"patience": 1}, [None, 1.0, None, None], [False, False, False, True]),
    ],
)
def test_a_run_ends_when_patience_does(kwargs, figures, stops):
    assert _answers(NoImprovement(**kwargs), figures) == stops


def test_the_figure_can_be_another():
    rule = NoImprovement(figure="OF1", patience=0)
    assert not rule.update({"mAP": 2.0, "OF1": 1.0})
    assert rule.update({"mAP": 3.0, "OF1": 1.0})


def test_a_rule_goes_on_from_its_saved_state():
    figures = [3.0, 4.0, 3.0, 3.0, 3.0, 3.0]
    straight = _answers(NoImprovement(patience=2), figures)
    before, after = NoImprovement(patience=2), NoImprovement(patience=2)
    answers = _answers(before, figures[:3])
    progress = Progress(states={"stop": before.state})
    after.state = from_json(Progress, to_json(progress)).states["stop"]
    assert answers + _answers(after, figures[3:]) == straight
    assert straight == [False, False, False, False, True, True]


def test_an_unknown_figure_is_named_with_those_that_there_are():
    with pytest.raises(ValueError, match="figure 'map'; there are mAP, OF1"):
        NoImprovement(figure="map", patience=1).update({"mAP": 1.0, "OF1": 2.0, "AP": {}})


def test_a_negative_patience_is_refused():
    with pytest.raises(ValueError, match="no_improvement: patience must be 0 or more, got -1"):
        NoImprovement(patience=-1)


def _smoothed(case):
    """Returns the rule of a case, and its scores as figures in percent."""
    hyper = golden.cases("aam_earlystop")[case]["hyper"]
    rule = SmoothedImprovement(
        patience=hyper["patience"], warmup=hyper["warmup_epochs_not_finished"]
    )
    return rule, [{"mAP": 100 * score} for score in hyper["scores"]]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("case", golden.names("aam_earlystop"))
def test_smoothed_improvement_decides_as_the_original(case, resumed):
    rule, figures = _smoothed(case)
    trace = golden.cases("aam_earlystop")[case]["outputs"]["trace"]
    for index, (stop, _, smoothed, waited, _) in enumerate(trace):
        if resumed:
            state = from_json(Progress, to_json(Progress(states={"stop": rule.state}))).states
            rule, _ = _smoothed(case)
            rule.state = state["stop"]
        assert rule.update(figures[index]) == stop, index
        assert rule.state["since"] == waited
        assert rule.state["smoothed"] == pytest.approx(smoothed, rel=1e-12)
    # Its trace ends where the run does.
    assert len(trace) == len(figures) or trace[-1][0]


@pytest.mark.parametrize(("name", "value"), [("patience", 0), ("warmup", -1)])
def test_smoothed_improvement_refuses_numbers_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"smoothed_improvement: {name} must be .*, got {value}"):
        SmoothedImprovement(**{name: value})


def test_an_undefined_figure_is_no_smoothed_improvement():
    rule = SmoothedImprovement(patience=2)
    assert _answers(rule, [50.0, None, None]) == [False, False, True]
