"""Schedules, the decay split and the moving average against torch's and the originals'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.config.schema import OptimizerConfig, ScheduleConfig
from mljax.training.optimizer import (
    decay_mask,
    learning_rate,
    make_optimizer,
    moving_average,
    one_cycle,
)
from tests import golden


@pytest.mark.parametrize("case", golden.names("asl_train", "onecycle"))
def test_one_cycle_is_torchs(case):
    hyper, expected = golden.cases("asl_train")[case]["hyper"], golden.arrays("asl_train", case)
    schedule = ScheduleConfig(
        warmup_fraction=hyper["pct_start"],
        initial_factor=float(hyper["div_factor"]),
        final_factor=float(hyper["final_div_factor"]),
    )
    steps = hyper["epochs"] * hyper["steps_per_epoch"]
    with jax.enable_x64(True):
        rate = learning_rate(OptimizerConfig(peak_lr=hyper["max_lr"]), schedule, steps)
        found = jax.vmap(rate)(jnp.arange(steps))
        np.testing.assert_allclose(found, expected["lr"], rtol=1e-12)
        if hyper["cycle_momentum"]:
            beta1 = one_cycle(
                0.95, 0.85, 0.95, total_steps=steps, warmup_fraction=hyper["pct_start"]
            )
            np.testing.assert_allclose(
                jax.vmap(beta1)(jnp.arange(steps)), expected["beta1"], rtol=1e-12
            )


def test_one_cycle_stays_at_its_end():
    rate = one_cycle(1.0, 2.0, 0.5, total_steps=10, warmup_fraction=0.2)
    assert rate(9) == rate(50) == 0.5


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_one_cycle_of_few_steps_is_finite(steps):
    rate = one_cycle(0.1, 1.0, 0.01, total_steps=steps, warmup_fraction=0.2)
    values = jax.vmap(rate)(jnp.arange(steps))
    assert jnp.isfinite(values).all() and values.min() >= 0.01 and values.max() <= 1.0


@pytest.mark.parametrize("case", golden.names("asl_train", "wd_"))
def test_decay_split_is_the_originals(case):
    row = golden.cases("asl_train")[case]
    axes = {"tok": 3, "scale": 1, "scalar": 0, "bias2": 2, "lin.weight": 2, "lin.bias": 1}
    names = row["extra"]["no_decay"] + row["extra"]["decay"]
    params = {
        name: jnp.zeros((2,) * axes.get(name, 4 if name in row["extra"]["decay"] else 1))
        for name in names
    }
    mask = decay_mask(params, tuple(row["hyper"]["skip_list"]))
    assert [n for n in names if not mask[n]] == row["extra"]["no_decay"]


@pytest.mark.parametrize("case", ["ema", "ema_default"])
def test_moving_average_is_the_originals(case):
    arrays = golden.arrays("asl_train", case)
    names = [k.removeprefix("init/") for k in arrays if k.startswith("init/")]
    # Parity: the original truncates its integer counters to 0; there are none here.
    names = [n for n in names if "num_batches" not in n]
    average = {n: jnp.asarray(arrays[f"init/{n}"]) for n in names}
    decay = golden.cases("asl_train")[case]["hyper"]["decay"]
    for step in range(golden.cases("asl_train")[case]["hyper"]["steps"]):
        new = {n: jnp.asarray(arrays[f"model/{n}"][step]) for n in names}
        average = moving_average(average, new, decay)
        for n in names:
            np.testing.assert_allclose(average[n], arrays[f"ema/{n}"][step], rtol=1e-6, atol=1e-7)


def test_adam_with_a_cycling_beta1_is_torchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((4, 3)), rng.standard_normal((12, 4, 3))
    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Adam([weight], lr=0.1, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.1, total_steps=12, pct_start=0.2)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        cycle.step() if cycle.last_epoch < 11 else None
    with jax.enable_x64(True):
        optimizer = make_optimizer(
            OptimizerConfig(peak_lr=0.1, weight_decay=0.01), ScheduleConfig(), 12
        )
        params = {"kernel": jnp.asarray(start)}
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
            params = {"kernel": params["kernel"] + updates["kernel"]}
        np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), rtol=1e-12)
