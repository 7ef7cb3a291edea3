"""The checkpoints of a run, on a small state that no training made."""

import dataclasses
import errno
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.checkpoints.checkpoint import load_model, read_config
from mljax.checkpoints.manifest import (
    sealed,
    verify,
)
from mljax.data.readers.digits import CLASS_NAMES
from mljax.models.arrays import split_model
from mljax.training import run_checkpoints
from mljax.training.progress import Progress
from mljax.training.run_checkpoints import try_saving
from tests import small_configs
from tests.training.run_states import (
    MODEL,
    PROGRESS,
    assert_equal,
    copies,
    make_state,
    save,
)


def test_empty_folder_restores_nothing(opened):
    assert opened().restore(make_state()) is None


def test_state_and_progress_are_restored_exactly(opened):
    state = make_state(7)
    expected = copies(state)
    checkpoints = opened()
    checkpoints.save(state, PROGRESS)
    checkpoints.wait()
    restored, progress = opened().restore(make_state())
    assert_equal(restored, expected)
    assert progress == PROGRESS


def test_state_without_average_is_restored(opened):
    checkpoints = opened()
    checkpoints.save(make_state(1, ema=False), Progress())
    checkpoints.wait()
    restored, _ = checkpoints.restore(make_state(ema=False))
    assert_equal(restored, copies(make_state(1, ema=False)))


def test_checkpoint_of_a_run_is_a_model_too(opened, tmp_path):
    save(opened(), 5)
    path = tmp_path / "checkpoints" / "5"
    verify(path)
    _, *found = split_model(load_model(path))
    expected = [make_state(5).params, make_state(5).statistics]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert read_config(path) == small_configs.config()


def test_the_newest_few_are_kept(opened, tmp_path):
    save(opened(keep=2), 5, 10, 15, 20)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["15", "20"]
    restored, progress = opened().restore(make_state())
    assert int(restored.step) == 20
    assert progress.bad_images == ("20.jpg",)


def test_donating_a_state_while_it_is_saved_does_not_change_what_is_saved(opened):
    change = jax.jit(lambda s: jax.tree.map(lambda a: a * 3 + 1, s), donate_argnums=0)
    change(make_state())
    state = jax.block_until_ready(make_state(4))
    expected = copies(state)
    checkpoints = opened()
    checkpoints.save(state, Progress())
    for _ in range(5):
        state = change(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    restored, _ = checkpoints.restore(make_state())
    assert_equal(restored, expected)


def test_progress_that_changes_while_it_is_saved_is_saved_as_it_was(opened, monkeypatch):
    checkpoints = opened()
    handler = run_checkpoints.ocp.JsonCheckpointHandler
    write, changed = handler._save_fn, threading.Event()

    async def late(*arguments):
        changed.wait(10)
        await write(*arguments)

    monkeypatch.setattr(handler, "_save_fn", late)
    state = {"best": 1.0, "since": 0}
    checkpoints.save(make_state(1), Progress(states={"stop": state}))
    state["since"] = 2
    changed.set()
    checkpoints.wait()
    _, progress = checkpoints.restore(make_state())
    assert progress == Progress(states={"stop": {"best": 1.0, "since": 0}})


def test_another_type_is_refused(opened):
    save(opened(), 5)
    kernel = "head.linear.kernel"
    state = make_state()
    params = state.params | {kernel: state.params[kernel].astype(jnp.bfloat16)}
    shape = state.params[kernel].shape
    expected = f"model.params.{kernel}: expected {shape} bfloat16, got {shape} float32"
    with pytest.raises(ValueError, match="does not fit the config") as error:
        opened().restore(dataclasses.replace(state, params=params))
    assert expected in str(error.value)


def test_trying_to_save_leaves_nothing(tmp_path):
    try_saving(tmp_path / "checkpoints", MODEL, small_configs.config())
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_trying_to_save_finds_what_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(MODEL, "class_names", ("cat", "\udcff"))
    with pytest.raises(ValueError, match="udcff|surrogates"):
        try_saving(tmp_path, MODEL, small_configs.config())
    monkeypatch.setattr(MODEL, "class_names", ("cat", "dog"))

    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_checkpoints, "write_description", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}"):
        try_saving(tmp_path, MODEL, small_configs.config())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_by_the_folder(opened, tmp_path, monkeypatch):
    def full(_):
        raise ValueError("RESOURCE_EXHAUSTED: long text [OS error 28: No space left on device]")

    checkpoints = opened()
    checkpoints.save(make_state(5), Progress())
    checkpoints.wait()
    monkeypatch.setattr(checkpoints, "_complete", full)
    checkpoints.save(make_state(10), Progress())
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'checkpoints'}'"):
        checkpoints.wait()


def test_state_of_another_network_is_refused_with_the_differences(opened, tmp_path):
    save(opened(), 5)
    state = make_state()
    kernel = "head.linear.kernel"
    params = state.params | {kernel: jnp.zeros((3, 4))}
    with pytest.raises(ValueError, match="does not fit the config") as error:
        opened().restore(dataclasses.replace(state, params=params))
    shape = state.params[kernel].shape
    assert f"model.params.{kernel}: expected (3, 4) float32, got {shape} float32" in str(
        error.value
    )
    assert f"{tmp_path / 'checkpoints' / '5' / 'config.json'}" in str(error.value)


def test_classes_in_another_order_are_refused(opened, monkeypatch):
    save(opened(), 5)
    monkeypatch.setattr(MODEL, "class_names", tuple(reversed(CLASS_NAMES)))
    with pytest.raises(ValueError, match="in another order: 10 differ, such as zero / nine, "):
        opened().restore(make_state())


def test_arrays_of_the_fresh_state_make_room_for_the_restored_ones(opened):
    checkpoints, state = opened(), make_state()
    assert checkpoints.restore(state) is None
    assert not state.step.is_deleted()
    save(checkpoints, 5)
    checkpoints.restore(state)
    assert all(array.is_deleted() for array in jax.tree.leaves(state))


def test_a_step_can_be_saved_again(opened, tmp_path):
    checkpoints = opened()
    save(checkpoints, 5)
    checkpoints.save(make_state(5), dataclasses.replace(PROGRESS, bad_images=("7.jpg",)))
    checkpoints.wait()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    _, progress = opened().restore(make_state())
    assert progress.bad_images == ("7.jpg",)


def test_another_tracker_is_refused(opened):
    save(opened(), 5)
    state = dataclasses.replace(make_state(), trackers={"mine": {"mean": jnp.zeros(10)}})
    with pytest.raises(ValueError, match="does not fit the config") as error:
        opened().restore(state)
    assert "training.trackers.mine.mean: expected (10,) float32, got nothing" in str(error.value)
    assert "training.trackers.class_prior.mean: expected nothing, got (10,) float32" in str(
        error.value
    )


def test_average_that_was_not_kept_is_refused(opened):
    checkpoints = opened()
    checkpoints.save(make_state(5, ema=False), Progress())
    checkpoints.wait()
    with pytest.raises(ValueError, match="training.ema_params.*: expected .*, got nothing"):
        checkpoints.restore(make_state())


def test_failure_in_the_background_is_raised_once_and_leaves_no_checkpoint(
    opened, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise OSError("no space left on device")

    checkpoints = opened()
    save(checkpoints, 5)
    monkeypatch.setattr(run_checkpoints, "seal", fail)
    checkpoints.save(make_state(10), Progress())
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(make_state(15), Progress())
    monkeypatch.undo()
    assert [p.name for p in sealed(tmp_path / "checkpoints")] == ["5"]
    assert int(opened().restore(make_state())[0].step) == 5
