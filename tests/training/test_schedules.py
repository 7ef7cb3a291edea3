"""Schedules against the originals' goldens and torch's schedulers."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from mljax.config import part
from mljax.config.part import resolved
from mljax.training.schedules import (
    SCHEDULES,
    epoch_cosine,
    epoch_linear,
    linear_warmup,
    multi_step,
    one_cycle,
    reduce_on_plateau,
    warmup_cosine,
    warmup_epoch_cosine,
)
from tests import golden

ONE_CYCLES = [
    *(("asl_train", case) for case in golden.names("asl_train", "onecycle")),
    *(("kmcl_train", case) for case in golden.names("kmcl_train")),
]


def _torch_optimizer(rate):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def _torch_rates(optimizer, scheduler, count):
    """Returns the rates of a scheduler that is stepped after each of `count` uses."""
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("group", "case"), ONE_CYCLES)
def test_one_cycle_is_the_originals(group, case):
    row, expected = golden.cases(group)[case], golden.arrays(group, case)
    said = row["hyper"] if group == "asl_train" else row["extra"]
    steps = said["epochs"] * said["steps_per_epoch"]
    schedule = one_cycle(
        said["max_lr"],
        steps,
        said["steps_per_epoch"],
        warmup_fraction=said.get("pct_start", 0.2),
        initial_factor=float(said.get("div_factor", 25)),
        final_factor=float(said.get("final_div_factor", 1e4)),
        cycle_beta1=said.get("cycle_momentum", True),
    )
    assert ("beta1" in schedule) == said.get("cycle_momentum", True)
    for name, values in schedule.items():
        key = {"learning_rate": "lr", "beta1": "beta1"}[name]
        found = [values(step) for step in range(steps)]
        np.testing.assert_allclose(found, expected[key], rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("warmup", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("steps", [3, 7, 40])
@pytest.mark.parametrize("factors", [(25.0, 1e4), (2.0, 5.0)])
def test_one_cycle_is_torchs(warmup, steps, factors):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.1,
        total_steps=steps,
        pct_start=warmup,
        div_factor=factors[0],
        final_div_factor=factors[1],
    )
    ours = one_cycle(
        0.1,
        steps,
        1,
        warmup_fraction=warmup,
        initial_factor=factors[0],
        final_factor=factors[1],
    )
    for step in range(steps):
        (group,) = optimizer.param_groups
        assert ours["learning_rate"](step) == pytest.approx(group["lr"], rel=1e-12)
        assert ours["beta1"](step) == pytest.approx(group["betas"][0], rel=1e-12)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_one_cycle_stays_at_its_end():
    rate = one_cycle(1.0, 10, 1, initial_factor=2.0, final_factor=4.0)["learning_rate"]
    assert rate(9) == rate(50) == 0.125


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_one_cycle_of_few_steps_stays_in_its_range(steps):
    rate = one_cycle(1.0, steps, 1, initial_factor=10.0, final_factor=10.0)["learning_rate"]
    assert all(0.01 <= rate(step) <= 1 for step in range(steps))


def test_one_cycle_can_be_longer_than_the_run():
    longer, whole = one_cycle(1.0, 60, 10, epochs=80), one_cycle(1.0, 800, 10)
    for name, step in itertools.product(whole, range(60)):
        assert longer[name](step) == whole[name](step)


def test_multi_step_is_torchs_stepped_once_an_epoch():
    optimizer = _torch_optimizer(0.1)
    theirs = lr_scheduler.MultiStepLR(optimizer, milestones=[2, 3, 3, 6], gamma=0.5)
    expected = np.repeat(_torch_rates(optimizer, theirs, 8), 4)
    ours = multi_step(0.1, 32, 4, milestones=(2, 3, 3, 6), factor=0.5)["learning_rate"]
    np.testing.assert_allclose([ours(step) for step in range(32)], expected, rtol=1e-12)


def test_multi_step_turns_within_an_epoch():
    rate = multi_step(1.0, 8, 4, milestones=(0.5,))["learning_rate"]
    assert [rate(step) for step in range(4)] == [1, 1, 0.1, 0.1]


def test_warmup_cosine_starts_peaks_and_ends_where_it_is_told():
    rate = warmup_cosine(2.0, 100, 10, warmup_epochs=2.0, initial_factor=0.25, final_factor=0.125)[
        "learning_rate"
    ]
    assert rate(0) == 0.5
    assert rate(20) == 2.0
    assert rate(60) == pytest.approx((2.0 + 0.25) / 2)
    assert rate(100) == rate(130) == 0.25


def test_warmup_cosine_is_torchs_linear_rise_and_cosine_fall():
    optimizer = _torch_optimizer(0.1)
    rise = lr_scheduler.LinearLR(optimizer, start_factor=0.2, total_iters=6)
    expected = _torch_rates(optimizer, rise, 6)
    optimizer = _torch_optimizer(0.1)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=24, eta_min=0.001)
    expected += _torch_rates(optimizer, fall, 25)
    ours = warmup_cosine(0.1, 30, 3, warmup_epochs=2.0, initial_factor=0.2, final_factor=0.01)[
        "learning_rate"
    ]
    np.testing.assert_allclose([ours(step) for step in range(31)], expected, rtol=1e-10)


def test_warmup_cosine_without_a_rise_begins_at_the_peak():
    assert warmup_cosine(0.5, 10, 1)["learning_rate"](0) == 0.5


def test_warmup_cosine_can_end_in_its_rise():
    rate = warmup_cosine(1.0, 5, 5, warmup_epochs=2.0)["learning_rate"]
    assert [rate(step) for step in range(5)] == [0, 0.1, 0.2, 0.3, 0.4]


# Rates fall from 0.1 by factors; with the third row, the last reductions are smaller than eps.
PLATEAUS = [
    {"factor": 0.5, "patience": 1},
    {"factor": 0.1, "patience": 2, "min_lr": 3e-3},
    {"factor": 0.5, "patience": 0, "eps": 0.01},
]


@pytest.mark.parametrize("kwargs", PLATEAUS)
@pytest.mark.parametrize("cooldown", [0, 3])
@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize(("threshold_mode", "threshold"), [("rel", 0.2), ("abs", 0.5), ("rel", 0)])
@pytest.mark.parametrize("shift", [10.0, 0.0, -10.0])
def test_reduce_on_plateau_is_torchs_step_by_step(
    kwargs, cooldown, direction, threshold_mode, threshold, shift
):
    kwargs = kwargs | {
        "cooldown": cooldown,
        "threshold": float(threshold),
        "threshold_mode": threshold_mode,
    }
    optimizer = _torch_optimizer(0.1)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, mode=direction, **kwargs)
    ours = reduce_on_plateau(0.1, 1, 1, figure="mAP", direction=direction, **kwargs)
    rate = ours["learning_rate"]
    rng = np.random.default_rng(0)
    sign = 1 if direction == "max" else -1
    # A walk that improves now and then, in steps about as large as the thresholds.
    figures = shift + sign * np.cumsum(rng.normal(0.05, 0.6, 80))
    figures[7] = math.nan
    rates = set()
    for step, figure in enumerate(figures.tolist()):
        theirs.step(figure)
        rate.update({"mAP": None if math.isnan(figure) else figure})
        assert rate(step) == optimizer.param_groups[0]["lr"], step
        rates.add(rate(step))
    # From a best figure below zero, a relative margin of the wrong sign makes all figures better.
    assert len(rates) > 1 or shift < 0, "the rate never changed"


def test_reduce_on_plateau_goes_on_from_its_saved_state():
    def schedule():
        kwargs = {"factor": 0.5, "patience": 1, "cooldown": 1}
        return reduce_on_plateau(0.1, 1, 1, **kwargs)["learning_rate"]

    figures = [{"mAP": value} for value in (3.0, 4.0, 1.0, None, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0)]
    straight, before, after = schedule(), schedule(), schedule()
    for number, figure in enumerate(figures):
        if number == 5:
            after.state = json.loads(json.dumps(before.state))
        resumed = before if number < 5 else after
        straight.update(figure)
        resumed.update(figure)
        assert resumed(0) == straight(0), number
    assert straight(0) < 0.1


@pytest.mark.parametrize("figures", [{"OF1": 1.0, "AP": [1.0]}, {"OF1": 1.0, "mAP": "high"}])
def test_reduce_on_plateau_names_the_figures_that_there_are(figures):
    with pytest.raises(ValueError, match=r"figure 'mAP'; there are OF1$"):
        reduce_on_plateau(0.1, 1, 1)["learning_rate"].update(figures)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_gives_a_learning_rate(name):
    needed = {
        "multi_step": {"milestones": (1.0,)},
        "linear_warmup": {"then": part("constant"), "epochs": 1.0},
        "warmup_epoch_cosine": {"warmup_epochs": 0},
    }
    kwargs = needed.get(name, {})
    schedule = resolved(part(name, **kwargs), "schedule")(0.5, 20, 5)
    rates = [schedule["learning_rate"](step) for step in range(20)]
    # The first of four epochs of SupCon's cosine, and of the line, is already below the peak.
    first = 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi / 4)) / 2
    highest = {"epoch_cosine": first, "epoch_linear": 1 - 1 / 5}.get(name, 1.0)
    assert max(rates) == pytest.approx(0.5 * highest)
    assert min(rates) > 0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (part("one_cycle", warmup_fraction=1.5), "warmup_fraction must be from 0 to 1, got 1.5"),
        (part("one_cycle", initial_factor=0), "one_cycle: initial_factor must be positive .*got 0"),
        (part("one_cycle", final_factor=-1), "one_cycle: final_factor must be positive .*got -1"),
        (part("one_cycle", epochs=0), "one_cycle: epochs must be positive .*, got 0"),
        (part("warmup_cosine", warmup_epochs=-1), "warmup_cosine: warmup_epochs must be 0 or more"),
        (part("warmup_epoch_cosine", epochs=5), "cosine_epochs must be positive .*, got 0"),
        (part("multi_step", milestones=(-1,)), "multi_step: milestones must be 0 or more.*got -1"),
        (part("multi_step", milestones=(1,), factor=0), "multi_step: factor must be positive"),
        (part("reduce_on_plateau", factor=1), "factor must be between 0 and 1, got 1"),
        (part("reduce_on_plateau", direction="up"), "argument 'direction' .*got 'up'"),
    ],
)
def test_arguments_out_of_range_are_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        resolved(schedule, "schedule")(0.1, 10, 5)


@pytest.mark.parametrize("case", golden.names("supcon_schedule"))
def test_rates_equal_supcontrast(case):
    hyper = golden.cases("supcon_schedule")[case]["hyper"]
    expected = golden.arrays("supcon_schedule", case)["lr"].ravel()
    then = part(multi_step, milestones=hyper["lr_decay_epochs"], factor=hyper["lr_decay_rate"])
    if hyper["cosine"]:
        then = part(epoch_cosine, final_factor=hyper["lr_decay_rate"] ** 3)
    chosen = part(linear_warmup, then=then) if hyper["warm"] else then
    schedule = resolved(chosen, "schedule")(
        hyper["learning_rate"], hyper["epochs"] * hyper["batches"], hyper["batches"]
    )
    found = [schedule["learning_rate"](step) for step in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


MULCON = {
    "stage1_readme": part(warmup_epoch_cosine),
    "stage1_cosine_nowarm": part(warmup_epoch_cosine, warmup_epochs=0, cosine_epochs=20),
    "stage1_linear": part(epoch_linear),
    "stage2_readme": part(multi_step, milestones=(20, 40)),
}


@pytest.mark.parametrize("case", golden.names("mulcon_schedule", "stage"))
def test_rates_equal_mulcon(case):
    hyper = golden.cases("mulcon_schedule")[case]["hyper"]
    expected = golden.arrays("mulcon_schedule", case)["lr"]
    # The encoder's group comes first, in stage two that of the attention second.
    factors = np.where(np.arange(len(hyper["groups"])) < hyper["stage"], hyper["lrp"], 1)
    schedule = resolved(MULCON[case], "schedule")(
        hyper["lr"], len(expected), hyper["steps_per_epoch"]
    )
    found = np.array([schedule["learning_rate"](step) for step in range(len(expected))])
    np.testing.assert_allclose(found[:, None] * factors[None], expected, rtol=1e-12, atol=1e-20)


def test_warmup_epoch_cosine_can_be_longer_than_the_run():
    longer = warmup_epoch_cosine(1.0, 60, 4, epochs=25)["learning_rate"]
    whole = warmup_epoch_cosine(1.0, 100, 4)["learning_rate"]
    assert [longer(step) for step in range(60)] == [whole(step) for step in range(60)]
