"""Where arrays live, and that the number of devices does not change what is trained.

Run as a program, this file trains on eight devices that XLA makes of one CPU, and writes what the
tests compare.
"""

import functools
import itertools
import json
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.scaling import count_sent
from mljax.devices.mesh import (
    batch_sharding,
    local_rows,
    make_mesh,
    put_batch,
    replicated,
    state_sharding,
)
from mljax.losses import selective_loss, supervised_contrastive_loss
from mljax.training import preparation
from mljax.training.progress import Progress
from mljax.training.run_checkpoints import RunCheckpoints
from mljax.training.schedules import hyperparameters
from tests import runs, small_configs

SMALL = "model.backbone.kwargs.layers=(1, 0, 0, 0)"
RUNS = {
    "one": (1, [SMALL]),
    "eight": (8, [SMALL]),
    "eight_fsdp": (8, [SMALL, "train.fsdp=True"]),
    "one_grouped": (1, [SMALL, "train.batch_norm_groups=8"]),
    "eight_grouped": (8, [SMALL, "train.batch_norm_groups=8"]),
}


def train_on(num_devices, assignments):
    """Returns a training on the first devices, its state after 20 steps, and their losses."""
    mesh = make_mesh(jax.devices()[:num_devices])
    with mock.patch.object(preparation, "make_mesh", lambda: mesh):
        training = preparation.prepare(small_configs.training_config(*assignments))
    state, losses = training.state, []
    with training.train_batches(start_step=0) as batches:
        for step, batch in enumerate(itertools.islice(batches, 20)):
            del batch["index"]
            inputs, rates = put_batch(batch, mesh), hyperparameters(training.schedule, step)
            state, metrics = training.step(state, inputs, jax.random.key(0), rates)
            losses.append(float(metrics["loss"]))
    return training, state, losses


def flatten(state):
    """Returns {path: array} of a state."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def program(training, state):
    """Returns the text of the compiled step."""
    with training.train_batches(start_step=0) as batches:
        inputs = put_batch({k: v for k, v in next(batches).items() if k != "index"}, training.mesh)
    rates = hyperparameters(training.schedule, 0)
    return training.step.lower(state, inputs, jax.random.key(0), rates).compile().as_text()


def evaluate(training, state):
    """Returns the logits of all evaluated images, in order."""
    weights = state.params, state.statistics
    with training.eval_batches() as batches:
        rows = [training.forward(*weights, batch["images"])["logits"] for batch in batches]
    return np.concatenate(rows)


def selective_losses(num_devices):
    """Returns the selective loss of a batch whose likeliest labels are all in its first image."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(16, 10)).astype(np.float32)
    logits[0] += 20
    labels = np.where(rng.random((16, 10)) < 0.7, -1, rng.integers(0, 2, (16, 10)))
    labels[0] = -1
    batch = {"logits": logits, "labels": labels.astype(np.float32), "valid": np.ones(16, bool)}
    batch = put_batch(batch, make_mesh(jax.devices()[:num_devices]))
    loss = jax.jit(functools.partial(selective_loss, mode="selective", likelihood_topk=1))
    return np.asarray(loss(**batch))


def contrasts(num_devices):
    """Returns the contrastive losses of 32 rows, and below them the gradient of their mean."""
    rng = np.random.default_rng(0)
    batch = {
        "projections": rng.normal(size=(32, 6)).astype(np.float32),
        "labels": np.eye(4, dtype=np.float32)[rng.integers(0, 4, 32)],
        "valid": np.arange(32) != 7,
    }
    batch = put_batch(batch, make_mesh(jax.devices()[:num_devices]))

    def mean(projections, rest):
        costs = supervised_contrastive_loss(projections, **rest, views=2, chunk_size=8)
        return costs.mean(), costs

    grads, costs = jax.jit(jax.grad(mean, has_aux=True))(batch.pop("projections"), batch)
    return np.column_stack([costs, grads])


def main(folder):
    """Writes the states of all runs, and one of them restored onto other devices."""
    np.save(folder / "selective.npy", np.stack([selective_losses(n) for n in (1, 8)]))
    np.save(folder / "contrasts.npy", np.stack([contrasts(n) for n in (1, 8)]))
    trainings, states, losses = {}, {}, {}
    for name, (num_devices, assignments) in RUNS.items():
        trainings[name], states[name], losses[name] = train_on(num_devices, assignments)
        np.savez(folder / f"{name}.npz", **flatten(states[name]))
        if "grouped" not in name:  # Groups are of training alone.
            np.save(folder / f"{name}_logits.npy", evaluate(trainings[name], states[name]))
    (folder / "losses.json").write_text(json.dumps(losses))
    for name in ("eight", "eight_grouped"):
        (folder / f"{name}.hlo").write_text(program(trainings[name], states[name]))

    leaves = jax.tree_util.tree_leaves_with_path(states["eight_fsdp"])
    shards = {
        jax.tree_util.keystr(path): (leaf.shape, leaf.addressable_shards[3].data.shape)
        for path, leaf in leaves
    }
    (folder / "shards.json").write_text(json.dumps(shards))

    split = trainings["eight_fsdp"]
    checkpoints = RunCheckpoints(folder / "checkpoints", split.model, split.config, keep=1)
    checkpoints.save(states["eight_fsdp"], Progress())
    checkpoints.wait()
    for name in ("one", "eight"):
        restored, _ = checkpoints.restore(states[name])
        np.savez(folder / f"restored_{name}.npz", **flatten(restored))
        devices = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(restored)}
        assert devices == {RUNS[name][0]}
    checkpoints.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    # Little optimization, since these programs are compiled once and run twenty times.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    process = runs.start("-m", "tests.devices.test_mesh", folder, flags=flags)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    return folder


def _load(folder, name):
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def _relative_difference(found, expected):
    """Returns the L2 norm of the difference over that of the expected arrays, all in one."""
    assert found.keys() == expected.keys()
    difference = sum(np.sum(np.square(found[k] - expected[k], dtype=float)) for k in found)
    return np.sqrt(difference / sum(np.sum(np.square(v, dtype=float)) for v in expected.values()))


# After twenty steps these float32 runs differ by up to 7e-7: sums over the batch have another
# order on more devices.
_TOLERANCE = 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "expected"),
    [("eight", "one"), ("eight_fsdp", "one"), ("eight_grouped", "one_grouped")],
)
def test_eight_devices_train_what_one_trains(measured, found, expected):
    found_state, expected_state = _load(measured, found), _load(measured, expected)
    moments = [f"opt_state[1].{name}" for name in ("mu", "nu")]
    for field in ("params", "statistics", "ema_params", "ema_statistics", *moments):
        parts = [
            {k: v for k, v in state.items() if k.startswith(f".{field}[")}
            for state in (found_state, expected_state)
        ]
        assert _relative_difference(*parts) < _TOLERANCE, field
    losses = json.loads((measured / "losses.json").read_text())
    np.testing.assert_allclose(losses[found], losses[expected], rtol=_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eight", "eight_fsdp"])
def test_eight_devices_evaluate_as_one(measured, name):
    found, expected = (np.load(measured / f"{n}_logits.npy") for n in (name, "one"))
    assert found.shape == (80, 10)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_selective_loss_has_one_budget_for_all_devices(measured):
    one, eight = np.load(measured / "selective.npy")
    np.testing.assert_allclose(eight, one, rtol=1e-6)
    # Ten of the budget of sixteen went to the first of eight devices, which has two images.
    assert (one[0] == 0).all()


@pytest.mark.slow
def test_the_contrastive_loss_compares_the_rows_of_all_devices(measured):
    one, eight = np.load(measured / "contrasts.npy")
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-6)
    assert (np.delete(one[:, 0], 7) > 0).all()


@pytest.mark.slow
def test_statistics_of_the_whole_batch_are_waited_for_and_those_of_a_device_are_not(measured):
    whole, grouped = (
        count_sent((measured / f"{name}.hlo").read_text()) for name in ("eight", "eight_grouped")
    )
    state = _load(measured, "eight")
    layers = sum(path.startswith(".statistics") and ".mean" in path for path in state)
    # Two forward and one backward for each layer, then the gradients.
    assert (layers, whole.in_a_row) == (3, 10)
    assert (grouped.in_a_row, grouped.waited_for) == (1, 0)
    parameters = sum(a.nbytes for path, a in state.items() if path.startswith(".params"))
    assert parameters < grouped.size < whole.size < 1.1 * parameters
    assert whole.others == grouped.others == ()


@pytest.mark.slow
def test_batch_norm_groups_train_another_network(measured):
    difference = _relative_difference(_load(measured, "one_grouped"), _load(measured, "one"))
    assert difference > 100 * _TOLERANCE


@pytest.mark.slow
def test_split_state_lies_in_parts_on_the_devices(measured):
    shards = json.loads((measured / "shards.json").read_text())
    kernel = ".opt_state[1].mu['backbone.stages.0.0.conv1.conv.kernel']"
    for path in (kernel, kernel.replace(".mu", ".nu")):
        assert shards[path] == [[3, 3, 8, 8], [3, 3, 1, 8]]
    assert shards[".params['backbone.stages.0.0.squeeze_excite.expand.kernel']"] == [
        [64, 8],
        [8, 8],
    ]
    assert shards[".ema_statistics['backbone.stem.norm.mean']"] == [[8], [1]]
    # No axis of ten classes can be split over eight devices.
    assert shards[".params['head.linear.bias']"] == [[10], [10]]
    assert shards[".params['head.linear.kernel']"] == [[8, 10], [1, 10]]
    assert shards[".step"] == [[], []]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["restored_one", "restored_eight"])
def test_split_checkpoint_is_restored_onto_other_devices_bit_for_bit(measured, name):
    found, expected = _load(measured, name), _load(measured, "eight_fsdp")
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].tobytes() == array.tobytes(), path


def test_states_are_replicated_unless_they_shall_be_split():
    mesh = make_mesh()
    state = {"a": jnp.zeros((8, 3)), "b": jnp.zeros(())}
    assert state_sharding(mesh, state, fsdp=False) == {k: replicated(mesh) for k in state}


def test_batch_lies_on_the_mesh_and_its_rows_come_back():
    mesh = make_mesh()
    batch = {
        "images": np.arange(48.0, dtype=np.float32).reshape(4, 2, 2, 3),
        "valid": np.ones(4, bool),
    }
    put = put_batch(batch, mesh)
    assert all(array.sharding == batch_sharding(mesh) for array in put.values())
    for name, array in put.items():
        np.testing.assert_array_equal(local_rows(array), batch[name])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
