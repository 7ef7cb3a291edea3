"""The range test and the search by trials against the published ones."""

import math

import numpy as np
import pytest

from mljax.training.rate_search import range_test, search_by_trials
from tests import golden


def _scores(best, epochs):
    """Returns the toy of the goldens: a rate to its scores."""

    def of(rate):
        score = 1 - abs(math.log10(rate / best)) / 3
        return [score * (1 - 0.5 ** (epoch + 1)) for epoch in range(epochs)]

    return of


@pytest.mark.parametrize("case", golden.names("aam_lrsearch"))
def test_trials_choose_as_the_original(case):
    pytest.importorskip("optuna")
    row = golden.cases("aam_lrsearch")[case]
    hyper = row["hyper"]
    found = search_by_trials(
        _scores(hyper["best"], hyper["num_epochs"]),
        low=hyper["min_lr"],
        high=hyper["max_lr"],
        step=hyper["step"],
        trials=hyper["n_trials"],
        whole_grid=hyper["mode"] == "grid_search",
    )
    assert found.suggestion == row["outputs"]["chosen"]
    # Which trials are completed, and in which order, is another with other versions of optuna.
    scores = _scores(hyper["best"], hyper["num_epochs"])
    for rate, value in zip(found.rates, found.values, strict=True):
        assert value == scores(round(rate, 6))[-1]
        assert hyper["min_lr"] <= rate <= hyper["max_lr"]
    assert len(set(found.rates)) == len(found.rates)


@pytest.mark.parametrize("case", golden.names("aam_opt", "lr_range"))
def test_range_test_suggests_as_the_original(case):
    arrays, hyper = golden.arrays("aam_opt", case), golden.cases("aam_opt")[case]["hyper"]
    smoothed, factor = arrays["loss"], hyper["smooth_f"]
    # The losses before smoothing, computed back from the smoothed ones.
    raw = [smoothed[0], *((smoothed[1:] - (1 - factor) * smoothed[:-1]) / factor)]
    losses = iter(raw)
    found = range_test(
        lambda rate: next(losses),
        low=hyper["start_lr"],
        high=hyper["end_lr"],
        steps=hyper["num_iter"],
        smoothing=factor,
        divergence=float(hyper["diverge_th"]),
        skip_start=hyper["skip_start"],
        skip_end=hyper["skip_end"],
    )
    np.testing.assert_allclose(found.rates, arrays["lr"], rtol=1e-12)
    np.testing.assert_allclose(found.values, smoothed, rtol=1e-12)
    assert found.suggestion == pytest.approx(hyper["suggested_lr"], rel=1e-12)


@pytest.mark.parametrize("last", [math.nan, math.inf, 100.0])
def test_a_range_test_ends_where_the_loss_diverges(last):
    losses = iter([4.0] * 20 + [3.0] * 10 + [last] + [4.0] * 9)
    found = range_test(lambda rate: next(losses), low=1e-3, high=1.0, steps=40, smoothing=1.0)
    assert len(found.values) == (31 if math.isfinite(last) else 30)
    # The slope of a step is at both of its sides; the first counts.
    assert found.suggestion == found.rates[19]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"low": 0.0, "high": 1.0, "steps": 40}, "rates must be positive and rise, got 0.0 to 1.0"),
        ({"low": 0.1, "high": 1.0, "steps": 16}, "16 of 16 steps have losses to compare"),
    ],
)
def test_a_range_test_that_tells_nothing_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        range_test(lambda rate: 1.0, **kwargs)


def test_trials_refuse_rates_out_of_range():
    with pytest.raises(ValueError, match=r"got 0.1 to 0.01 by 0.001 and 15 trials"):
        search_by_trials(_scores(1, 1), low=0.1, high=0.01, step=0.001)
