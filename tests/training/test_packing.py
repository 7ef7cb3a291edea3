"""Updates of a packed state equal those of a state by path."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.config import part
from mljax.config.schema import ParameterGroup
from mljax.training.gradients import micro_batches, sharpness_aware
from mljax.training.optimizer import (
    group_names,
    is_elementwise,
    make_optimizer,
    no_bias_decay,
)
from mljax.training.packing import Packing
from mljax.training.preparation import prepare
from mljax.training.schedules import hyperparameters
from mljax.training.state import TrainState
from mljax.training.step import make_train_step
from tests import small_configs

RATES = {"learning_rate": 0.05}
GROUPS = (
    ParameterGroup(pattern="stem.*", frozen=True),
    ParameterGroup(pattern="head.*", max_axes=2, rate_factor=3.0),
    *no_bias_decay(),
)
NAMES = ("conv.kernel", "conv.bias", "norm.scale", "linear.kernel", "linear.bias", "power")
SHAPES = ((3, 3, 2, 4), (4,), (4,), (4, 2), (2,), ())


def _arrays():
    rng = np.random.default_rng(0)
    shapes = {
        f"{block}.{name}": shape
        for block in ("stem", "blocks.10", "head")
        for name, shape in zip(NAMES, SHAPES, strict=True)
    }
    return {path: jnp.asarray(rng.normal(size=s), jnp.float32) for path, s in shapes.items()}


def _gradients(params, variables, batch, key):
    """Returns the gradients of a function of all parameters that also moves statistics."""
    del key

    def loss(params):
        factor = batch["images"].mean()
        return sum(jnp.sin(factor * i * a).sum() for i, a in enumerate(params.values(), 1))

    value, grads = jax.value_and_grad(loss)(params)
    moved = {path: 0.9 * a + 0.1 * value for path, a in variables["statistics"].items()}
    return (value, ({**variables, "statistics": moved}, {"sine": value})), grads


def _state(optimizer, ema):
    params = _arrays()
    statistics = {"norm.mean": jnp.zeros(4), "norm.var": jnp.ones(4), "head.vectors": jnp.ones(2)}
    copies = jax.tree.map(jnp.copy, (params, statistics))
    return TrainState(
        step=jnp.int32(0),
        params=params,
        statistics=statistics,
        ema_params=copies[0] if ema else {},
        ema_statistics=copies[1] if ema else {},
        opt_state=optimizer(RATES).init(params),
        skipped=jnp.int32(0),
        trackers={"prior": {"mean": jnp.zeros(2)}},
    )


def _run(step, state, factors):
    step = jax.jit(step)
    for number, factor in enumerate(factors):
        batch = {"images": jnp.full((4, 1), factor, jnp.float32)}
        rates = {"learning_rate": 0.05 / (number + 1)}
        state, metrics = step(state, batch, jax.random.key(0), rates)
    # Other rates are other arguments of one program.
    assert step._cache_size() == 1
    return state, metrics


CASES = {
    "sgd": ("torch_sgd", {"momentum": 0.9, "nesterov": True}, GROUPS, None, lambda g: g),
    "adam": ("torch_adam", {}, GROUPS, 0.5, lambda g: micro_batches(g, count=2)),
    "adam without groups": ("torch_adam", {}, (), None, lambda g: g),
    "adamw": ("torch_adamw", {}, GROUPS[1:], 0.5, sharpness_aware),
}


# Sines of up to 18 times a weight, over four steps: as a user's they agree to the tolerance.
@pytest.mark.usefixtures("as_a_users")
@pytest.mark.parametrize("case", CASES)
def test_steps_equal_those_by_path_and_leave_out_what_is_not_finite(case):
    algorithm, kwargs, groups, clip_norm, wrap = CASES[case]
    ema = 0.0 if case == "sgd" else 0.9
    optimizer = make_optimizer(part(algorithm, weight_decay=0.1, **kwargs), groups, clip_norm)
    gradients, state = wrap(_gradients), _state(optimizer, ema)
    packing = Packing(state, group_names(state.params, groups))
    factors = (0.7, np.nan, 1.3, 0.2)
    expected, figures = _run(make_train_step(gradients, optimizer, ema_decay=ema), state, factors)
    packed, metrics = _run(
        make_train_step(packing.gradients(gradients), optimizer, ema_decay=ema),
        packing.pack(state),
        factors,
    )
    found = packing.unpack(packed)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert (int(found.step), int(found.skipped)) == (4, 1)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, (found, metrics), (expected, figures))
    kept = {p for p, a in found.params.items() if np.array_equal(a, state.params[p])}
    frozen = GROUPS[0] in groups
    assert kept == {p for p in found.params if frozen and p.startswith("stem.")}


def test_unpacking_undoes_packing_and_taking_frees_the_arrays():
    optimizer = make_optimizer(part("torch_adam"), GROUPS)
    state = _state(optimizer, 0.9)
    before = jax.tree.map(np.array, state)
    packing = Packing(state, group_names(state.params, GROUPS))
    packed = packing.take(state)
    # Two of each kind: rate, decay and axes differ; what has no axis is alone.
    assert len(packed.params) < len(state.params)
    assert state.params["head.conv.kernel"].is_deleted()
    jax.tree.map(np.testing.assert_array_equal, packing.unpack(packed), before)
    assert set(packed.params) <= set(state.params)


@pytest.mark.parametrize("groups", [(), GROUPS[2:]])
def test_an_update_has_as_many_operations_for_many_layers_as_for_few(groups):
    optimizer = make_optimizer(part("torch_adam", weight_decay=0.1), groups)

    def count(layers):
        params = {f"{i}.{path}": a for i in range(layers) for path, a in _arrays().items()}
        params = {path: a for path, a in params.items() if a.ndim}
        state = dataclasses.replace(
            _state(optimizer, 0.9),
            params=params,
            ema_params=params,
            opt_state=optimizer(RATES).init(params),
        )
        state = Packing(state, group_names(params, groups)).pack(state)
        found = (jnp.float32(0), ({"statistics": {}, "trackers": {}}, {})), state.params
        state = dataclasses.replace(state, statistics={}, ema_statistics={}, trackers={})
        step = make_train_step(lambda *_: found, optimizer, ema_decay=0.9)
        return len(jax.make_jaxpr(step)(state, {}, jax.random.key(0), RATES).eqns)

    assert count(2) == count(20)


def test_a_rate_and_what_schedules_make_of_a_config_compile_nothing_anew():
    small = "model.backbone.kwargs.layers=(0, 0, 0, 0)"
    other = "optimizer.peak_lr=0.5", "schedule.kwargs.warmup_fraction=0.5", "train.epochs=9"
    texts = []
    for change in ((), other):
        training = prepare(small_configs.training_config(small, *change))
        state = training.pack(training.state)
        images = jnp.zeros((8, 32, 32, 3))
        batch = {"images": images, "labels": jnp.zeros((8, 10)), "valid": jnp.ones(8, bool)}
        rates = hyperparameters(training.schedule, 3)
        texts.append(training.step.lower(state, batch, jax.random.key(0), rates).as_text())
    assert texts[0] == texts[1]


def test_only_algorithms_of_single_values_are_packed():
    assert all(is_elementwise(part(name)) for name in ("torch_adam", "torch_adamw", "torch_sgd"))
    assert not is_elementwise(part("optax:lamb"))
    small = "model.backbone.kwargs.layers=(0, 0, 0, 0)"
    packed = {
        change: prepare(small_configs.training_config(small, *change)).packing is not None
        for change in ((), ("train.fsdp=True",))
    }
    assert packed == {(): True, ("train.fsdp=True",): False}
