"""Algorithms, groups and clipping against torch's, optax's and the originals'."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from mljax.config import ParameterGroup, Part, from_json, part, to_json
from mljax.training.optimizer import (
    check_groups,
    check_hyperparameters,
    make_optimizer,
    moving_average,
    no_bias_decay,
    torch_adam,
    torch_adamw,
    torch_sgd,
)
from mljax.training.schedules import one_cycle
from tests import golden

RATE = {"learning_rate": 0.1}
PARAMS = {"backbone.kernel": (3, 4), "head.kernel": (4, 2), "head.bias": (2,)}


def _arrays(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: scale * rng.standard_normal(shape) for name, shape in PARAMS.items()}


def _train(optimizer, params, gradients, rates=RATE):
    """Returns the parameters after a step with each of the gradients, in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params)
        state = optimizer(rates).init(params)
        update = jax.jit(optimizer(rates).update)
        for each in gradients:
            updates, state = update(each, state, params)
            params = optax.apply_updates(params, updates)
        return jax.tree.map(np.asarray, params)


def _train_torch(make, params, gradients):
    weights = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in params.items()}
    optimizer = make(list(weights.values()))
    for each in gradients:
        for name, weight in weights.items():
            weight.grad = torch.tensor(each[name])
        optimizer.step()
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def _assert_close(found, expected, rtol=1e-12):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=rtol, atol=1e-15, err_msg=name)


def _updates(optimizer, gradients=None, rates=RATE):
    """Returns the updates of the first step."""
    params = _arrays(0)
    after = _train(optimizer, params, [gradients or _arrays(1)], rates)
    return {name: after[name] - params[name] for name in params}


GRADIENTS = [_arrays(seed) for seed in range(1, 9)]


@pytest.mark.parametrize("case", golden.names("asl_train", "wd_"))
def test_decay_split_is_the_originals(case):
    row = golden.cases("asl_train")[case]
    axes = {"tok": 3, "scale": 1, "scalar": 0, "bias2": 2, "lin.weight": 2, "lin.bias": 1}
    names = row["extra"]["no_decay"] + row["extra"]["decay"]
    params = {
        name: jnp.ones((2,) * axes.get(name, 4 if name in row["extra"]["decay"] else 1))
        for name in names
    }
    without = [
        ParameterGroup(pattern=name, kwargs={"weight_decay": 0.0})
        for name in row["hyper"]["skip_list"]
    ]
    decay = row["hyper"]["weight_decay"]
    transform = make_optimizer(part(torch_adam, weight_decay=decay), without)(RATE)
    zeros = jax.tree.map(jnp.zeros_like, params)
    # Without a gradient, only what is decayed moves.
    updates, _ = jax.jit(transform.update)(zeros, transform.init(params), params)
    assert [n for n in names if not updates[n].any()] == row["extra"]["no_decay"]


@pytest.mark.parametrize(
    ("algorithm", "theirs"),
    [(torch_adam, torch.optim.Adam), (torch_adamw, torch.optim.AdamW)],
)
def test_adam_with_a_cycling_beta1_is_torchs(algorithm, theirs):
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((4, 3)), rng.standard_normal((12, 4, 3))
    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = theirs([weight], lr=0.1, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.1, total_steps=12, pct_start=0.2)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        cycle.step() if cycle.last_epoch < 11 else None
    schedule = one_cycle(0.1, 12, 1)
    optimizer = make_optimizer(part(algorithm, weight_decay=0.01))
    with jax.enable_x64(True):
        params = {"kernel": jnp.asarray(start)}
        state = optimizer({name: value(0) for name, value in schedule.items()}).init(params)
        for step, gradient in enumerate(gradients):
            transform = optimizer({name: value(step) for name, value in schedule.items()})
            updates, state = transform.update({"kernel": jnp.asarray(gradient)}, state, params)
            params = {"kernel": params["kernel"] + updates["kernel"]}
        np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch_adam(0.1, weight_decay=0.1), optax.scale_by_adam()),
        (torch_adamw(0.1), optax.scale_by_adam()),
        (torch_sgd(0.1, momentum=0.9), optax.trace(0.9)),
    ],
)
def test_moments_begin_as_optaxs(ours, theirs):
    params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(2, jnp.bfloat16)}
    found, expected = (jax.tree.leaves(each.init(params)) for each in (ours, theirs))
    for array, other in zip(found, expected, strict=True):
        assert isinstance(array, jax.Array)
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)


def test_adams_own_arguments_are_torchs():
    kwargs = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}
    params = _arrays(0)
    expected = _train_torch(
        lambda weights: torch.optim.Adam(weights, lr=0.1, betas=(0.8, 0.95), eps=1e-3),
        params,
        GRADIENTS,
    )
    _assert_close(_train(make_optimizer(part(torch_adam, **kwargs)), params, GRADIENTS), expected)


def test_adamw_decays_every_parameter_as_torchs():
    params = _arrays(0)
    expected = _train_torch(
        lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.05), params, GRADIENTS
    )
    found = _train(make_optimizer(part(torch_adamw, weight_decay=0.05)), params, GRADIENTS)
    _assert_close(found, expected)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True), (0.5, True)]
)
def test_sgd_is_torchs(momentum, nesterov, weight_decay):
    kwargs = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    params = _arrays(0)
    expected = _train_torch(
        lambda weights: torch.optim.SGD(weights, lr=0.1, **kwargs), params, GRADIENTS
    )
    _assert_close(_train(make_optimizer(part(torch_sgd, **kwargs)), params, GRADIENTS), expected)


@pytest.mark.parametrize(
    ("factory", "kwargs"),
    [
        (optax.adamw, {"weight_decay": 0.05, "b1": 0.8}),
        (optax.lamb, {"weight_decay": 0.01}),
        (optax.sgd, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_algorithms_of_optax_are_named_by_part(factory, kwargs):
    algorithm = part(factory, **kwargs)
    assert algorithm.name == f"optax:{factory.__name__}"
    optimizer = make_optimizer(from_json(Part, to_json(algorithm)))
    params = _arrays(0)
    found = _train(optimizer, params, GRADIENTS)
    expected = _train(lambda rates: factory(**rates, **kwargs), params, GRADIENTS)
    _assert_close(found, expected, rtol=0)


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (part("torch_adan"), "unknown algorithm 'torch_adan'; did you mean torch_adam"),
        (part(torch_adam, decay=1.0), "torch_adam takes no argument 'decay'"),
        (part(torch_sgd, momentum="much"), "torch_sgd: argument 'momentum' must be .*got 'much'"),
        (part("optax:adamx"), "optax defines no callable adamx"),
        (part("optax:adamw", beta1=0.9), "optax:adamw takes no argument 'beta1'"),
    ],
)
def test_an_algorithm_that_does_not_fit_is_refused(algorithm, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(algorithm)


def test_the_same_state_serves_what_a_config_changes_on_resume():
    params, gradients = _arrays(0), GRADIENTS
    before = make_optimizer(part(torch_adam, weight_decay=0.0, beta2=0.9), clip_norm=1.0)
    after = make_optimizer(part(torch_adam, weight_decay=0.3, beta2=0.5), clip_norm=2.0)
    with jax.enable_x64(True):
        state = before(RATE).init(params)
        _, state = before(RATE).update(gradients[0], state, params)
        changed, _ = after({"learning_rate": 0.2}).update(gradients[1], state, params)
        # The state holds moments alone: what is done with them is all of the second config.
        adam = state[1][1]
        gradient = {
            name: g * min(1, 2 / optax.tree.norm(gradients[1])) for name, g in gradients[1].items()
        }
        for name, g in gradient.items():
            g = g + (0 if name.endswith("bias") else 0.3 * params[name])
            mean = (0.9 * adam.mu[name] + 0.1 * g) / (1 - 0.9**2)
            square = (0.5 * adam.nu[name] + 0.5 * g**2) / (1 - 0.5**2)
            expected = -0.2 * mean / (np.sqrt(square) + 1e-8)
            np.testing.assert_allclose(changed[name], expected, rtol=1e-12, err_msg=name)


def test_a_schedule_moves_only_what_the_algorithm_takes():
    check_hyperparameters(part(torch_adam), ["learning_rate", "beta1"])
    check_hyperparameters(part(torch_sgd), ["learning_rate"])
    for algorithm in (part(torch_sgd), part(optax.adamw)):
        with pytest.raises(ValueError, match=f"beta1.*{algorithm.name}.*cycle_beta1=False"):
            check_hyperparameters(algorithm, ["learning_rate", "beta1"])


def test_a_group_has_a_factor_of_the_rate():
    plain = _updates(make_optimizer(part(torch_adam)))
    group = ParameterGroup(pattern="head.*", rate_factor=0.1)
    found = _updates(make_optimizer(part(torch_adam), [group]))
    factors = {"backbone.kernel": 1, "head.kernel": 0.1, "head.bias": 0.1}
    _assert_close(found, {name: factors[name] * plain[name] for name in plain}, rtol=1e-10)


def test_a_group_has_arguments_of_its_own():
    group = ParameterGroup(pattern="*.bias", kwargs={"weight_decay": 0.0})
    found = _updates(make_optimizer(part(torch_sgd, weight_decay=0.5), [group]))
    params, gradients = _arrays(0), _arrays(1)
    decays = {"backbone.kernel": 0.5, "head.kernel": 0.5, "head.bias": 0.0}
    expected = {n: -0.1 * (gradients[n] + decays[n] * params[n]) for n in params}
    _assert_close(found, expected, rtol=1e-10)


def test_a_frozen_group_does_not_move_though_it_would_decay():
    group = ParameterGroup(pattern="backbone.*", frozen=True)
    params = _arrays(0)
    after = _train(make_optimizer(part(torch_adam, weight_decay=0.5), [group]), params, GRADIENTS)
    np.testing.assert_array_equal(after["backbone.kernel"], params["backbone.kernel"])
    assert (after["head.kernel"] != params["head.kernel"]).all()


def test_the_first_group_that_matches_has_a_parameter():
    first = ParameterGroup(pattern="head.bias", rate_factor=0.5)
    second = ParameterGroup(pattern="head.*", frozen=True)
    found = _updates(make_optimizer(part(torch_sgd), [first, second]))
    gradients = _arrays(1)
    factors = {"backbone.kernel": 1, "head.kernel": 0, "head.bias": 0.5}
    expected = {n: -0.1 * factors[n] * gradients[n] for n in gradients}
    _assert_close(found, expected, rtol=1e-10)


def test_hyperparameters_of_the_schedule_reach_every_group():
    group = ParameterGroup(pattern="head.*", kwargs={"beta2": 0.5})
    rates = {"learning_rate": 0.3, "beta1": 0.5}
    found = _train(make_optimizer(part(torch_adam), [group]), _arrays(0), GRADIENTS, rates)
    for name, beta2 in (("backbone.kernel", 0.999), ("head.kernel", 0.5)):
        alone = make_optimizer(part(torch_adam, beta2=beta2))
        expected = _train(alone, _arrays(0), GRADIENTS, rates)
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


def test_no_bias_decay_doubles_the_rate_of_biases_and_decays_only_what_has_axes():
    shapes = {"conv.kernel": (3, 4), "conv.bias": (2,), "norm.scale": (3,), "head.queries": (2, 3)}
    optimizer = make_optimizer(part(torch_sgd, weight_decay=0.5), no_bias_decay("*.queries"))
    rng = np.random.default_rng(0)
    params, gradients = ({n: rng.normal(size=s) for n, s in shapes.items()} for _ in range(2))
    after = _train(optimizer, params, [gradients])
    factors = {"conv.bias": 2}
    expected = {
        n: p - 0.1 * factors.get(n, 1) * (gradients[n] + (0.5 * p if n == "conv.kernel" else 0))
        for n, p in params.items()
    }
    _assert_close(after, expected)


@pytest.mark.parametrize(
    ("patterns", "unmatched"),
    [(["neck.*"], "neck.*"), (["head.*", "head.bias"], "head.bias"), (["head"], "head")],
)
def test_a_group_without_parameters_is_an_error(patterns, unmatched):
    groups = [ParameterGroup(pattern=pattern) for pattern in patterns]
    with pytest.raises(ValueError, match="optimizer.groups: pattern") as error:
        check_groups(_arrays(0), groups)
    assert repr(unmatched) in str(error.value)
    assert "head.bias" in str(error.value)


def test_a_group_of_few_axes_without_parameters_is_an_error():
    group = ParameterGroup(pattern="*.kernel", max_axes=1)
    with pytest.raises(ValueError, match="'\\*.kernel' matches no parameter of up to 1 axes"):
        check_groups({"head.kernel": np.ones((2, 3))}, [group])


def test_groups_that_match_are_accepted():
    check_groups(_arrays(0), [ParameterGroup(pattern="head.*"), ParameterGroup(pattern="*")])


def test_arguments_of_a_group_are_checked():
    group = ParameterGroup(pattern="head.*", kwargs={"wait_decay": 0.1})
    with pytest.raises(ValueError, match="'wait_decay'; did you mean weight_decay"):
        make_optimizer(part(torch_adam), [group])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_clipping_is_torchs_up_to_what_torch_adds_to_the_norm(scale):
    gradients = _arrays(1, scale)
    weights = {n: torch.nn.Parameter(torch.tensor(a)) for n, a in gradients.items()}
    for name, weight in weights.items():
        weight.grad = torch.tensor(gradients[name])
    norm = float(torch.nn.utils.clip_grad_norm_(weights.values(), max_norm=1.0))
    moved = _updates(
        make_optimizer(part(torch_sgd), clip_norm=1.0), gradients, {"learning_rate": 1}
    )
    for name, weight in weights.items():
        # torch divides by norm + 1e-6.
        ours = -moved[name] * (norm / (norm + 1e-6) if norm > 1 else 1)
        np.testing.assert_allclose(ours, weight.grad.numpy(), rtol=1e-10, atol=1e-15)


def test_the_gradient_of_a_frozen_group_counts_in_the_norm():
    group = ParameterGroup(pattern="backbone.*", frozen=True)
    gradients = _arrays(1, 10.0)
    moved = _updates(make_optimizer(part(torch_sgd), [group], 1.0), gradients)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values()))
    expected = -0.1 * gradients["head.kernel"] / norm
    np.testing.assert_allclose(moved["head.kernel"], expected, rtol=1e-10)


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


@pytest.mark.parametrize("case", golden.names("aam_opt", "ema_"))
def test_moving_average_takes_in_running_statistics_as_the_original(case):
    hyper = golden.cases("aam_opt")[case]["hyper"]
    names = list(golden.cases("aam_opt")[case]["params"])
    average = {n: jnp.asarray(array) for n, array in golden.state_dict("aam_opt", case).items()}
    for step in range(hyper["updates"]):
        new = {n: jnp.asarray(golden.fill_input(f"{n}.{step}", (4,), -1, 1)) for n in names}
        average = moving_average(average, new, hyper["decay"])
        found = np.concatenate([average[n] for n in names])
        expected = golden.arrays("aam_opt", case)["ema"][step]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
