"""The checkpoints of a run, on a small state that no training made."""

import dataclasses
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mljax.checkpoints.checkpoint import load_model, read_config
from mljax.checkpoints.manifest import MANIFEST, sealed, verify
from mljax.config import part
from mljax.data.readers.digits import CLASS_NAMES
from mljax.models.arrays import split_model
from mljax.training import run_checkpoints
from mljax.training.progress import Best, Progress
from mljax.training.run_checkpoints import RunCheckpoints, save_only
from mljax.training.state import TrainState
from tests import networks, small_configs

_MODEL = networks.model(backbone=part("tresnet_m", layers=(0, 0, 0, 0), width=8))
_PROGRESS = Progress(
    best=Best(figure=1 / 3, step=4, weights="ema"),
    bad_images=(3, 8),
    evaluated=4,
    states={"stop": {"best": 0.1, "since": 2}},
)


def _state(step=0, *, ema=True):
    """Returns a state whose arrays differ from each other and from those of other steps."""
    _, params, statistics = split_model(_MODEL)
    fields = {
        "params": params,
        "statistics": statistics,
        "ema_params": params if ema else {},
        "ema_statistics": statistics if ema else {},
        "opt_state": optax.scale_by_adam().init(params),
        "skipped": jnp.asarray(2, jnp.int32),
        "trackers": {"class_prior": {"mean": jnp.zeros(10)}},
    }
    rng = np.random.default_rng(step)
    fields = jax.tree.map(lambda a: jnp.asarray(rng.normal(3, 1, a.shape), a.dtype), fields)
    return TrainState(step=jnp.asarray(step, jnp.int32), **fields)


def _copies(state):
    return [np.array(a, copy=True) for a in jax.tree.leaves(state)]


def _assert_equal(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(_state(ema=bool(state.ema_params)))
    leaves = _copies(state)
    assert [a.dtype for a in leaves] == [a.dtype for a in expected]
    jax.tree.map(np.testing.assert_array_equal, leaves, expected)


@pytest.fixture
def opened(tmp_path):
    """Returns `open(keep=2)`, whose checkpoints are closed at the end of the test."""
    made = []

    def open_(keep=2):
        folder = tmp_path / "checkpoints"
        made.append(RunCheckpoints(folder, _MODEL, small_configs.config(), keep=keep))
        return made[-1]

    yield open_
    for checkpoints in made:
        checkpoints.close()


def _save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(_state(step), dataclasses.replace(_PROGRESS, bad_images=(step,)))
    checkpoints.wait()


def test_empty_folder_restores_nothing(opened):
    assert opened().restore(_state()) is None


def test_state_and_progress_are_restored_exactly(opened):
    state = _state(7)
    expected = _copies(state)
    checkpoints = opened()
    checkpoints.save(state, _PROGRESS)
    checkpoints.wait()
    restored, progress = opened().restore(_state())
    _assert_equal(restored, expected)
    assert progress == _PROGRESS


def test_state_without_average_is_restored(opened):
    checkpoints = opened()
    checkpoints.save(_state(1, ema=False), Progress())
    checkpoints.wait()
    restored, _ = checkpoints.restore(_state(ema=False))
    _assert_equal(restored, _copies(_state(1, ema=False)))


def test_checkpoint_of_a_run_is_a_model_too(opened, tmp_path):
    _save(opened(), 5)
    path = tmp_path / "checkpoints" / "5"
    verify(path)
    _, *found = split_model(load_model(path))
    expected = [_state(5).params, _state(5).statistics]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert read_config(path) == small_configs.config()


def test_the_newest_few_are_kept(opened, tmp_path):
    _save(opened(keep=2), 5, 10, 15, 20)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["15", "20"]
    restored, progress = opened().restore(_state())
    assert int(restored.step) == 20
    assert progress.bad_images == (20,)


def test_donating_a_state_while_it_is_saved_does_not_change_what_is_saved(opened):
    change = jax.jit(lambda s: jax.tree.map(lambda a: a * 3 + 1, s), donate_argnums=0)
    change(_state())
    state = jax.block_until_ready(_state(4))
    expected = _copies(state)
    checkpoints = opened()
    checkpoints.save(state, Progress())
    for _ in range(5):
        state = change(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    restored, _ = checkpoints.restore(_state())
    _assert_equal(restored, expected)


def test_progress_that_changes_while_it_is_saved_is_saved_as_it_was(opened, monkeypatch):
    checkpoints = opened()
    handler = run_checkpoints.ocp.JsonCheckpointHandler
    write, changed = handler._save_fn, threading.Event()

    async def late(*arguments):
        changed.wait(10)
        await write(*arguments)

    monkeypatch.setattr(handler, "_save_fn", late)
    state = {"best": 1.0, "since": 0}
    checkpoints.save(_state(1), Progress(states={"stop": state}))
    state["since"] = 2
    changed.set()
    checkpoints.wait()
    _, progress = checkpoints.restore(_state())
    assert progress == Progress(states={"stop": {"best": 1.0, "since": 0}})


def test_leftovers_of_interrupted_saves_are_removed(opened, tmp_path):
    checkpoints = opened()
    _save(checkpoints, 5, 10)
    folder = tmp_path / "checkpoints"
    (folder / "10" / MANIFEST).unlink()
    (folder / f"15{run_checkpoints.ocp.utils.TMP_DIR_SUFFIX}-1" / "model").mkdir(parents=True)
    (folder / "mine").mkdir()
    restored, _ = opened().restore(_state())
    assert int(restored.step) == 5
    assert sorted(p.name for p in folder.iterdir()) == ["5", "mine"]


def _flip(folder):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return str(path.relative_to(folder))


def test_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_used(opened, tmp_path):
    checkpoints = opened()
    _save(checkpoints, 5, 10)
    folder = tmp_path / "checkpoints"
    damaged = _flip(folder / "10")
    with pytest.warns(UserWarning) as caught:
        checkpoints = opened()
    (message,) = [str(w.message) for w in caught]
    for text in (f"checkpoint {folder / '10'} is damaged", damaged, "damaged-10", "one before"):
        assert text in message
    restored, _ = checkpoints.restore(_state())
    _assert_equal(restored, _copies(_state(5)))
    assert sorted(p.name for p in folder.iterdir()) == ["5", "damaged-10"]


def test_the_same_step_may_be_damaged_again(opened, tmp_path):
    folder = tmp_path / "checkpoints"
    for _ in range(3):
        checkpoints = opened()
        _save(checkpoints, 10)
        _flip(folder / "10")
        with pytest.warns(UserWarning, match="is damaged"):
            assert opened().restore(_state()) is None
    assert sorted(p.name for p in folder.iterdir()) == [
        "damaged-10",
        "damaged-10-2",
        "damaged-10-3",
    ]


def test_all_damaged_checkpoints_restore_nothing(opened, tmp_path):
    _save(opened(), 5, 10)
    for step in ("5", "10"):
        _flip(tmp_path / "checkpoints" / step)
    with pytest.warns(UserWarning, match="is damaged") as caught:
        assert opened().restore(_state()) is None
    assert len(caught) == 2


def test_intact_checkpoints_give_no_warning(opened):
    _save(opened(), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int(opened().restore(_state())[0].step) == 5


def test_state_of_another_network_is_refused_with_the_differences(opened, tmp_path):
    _save(opened(), 5)
    state = _state()
    kernel = "head.linear.kernel"
    params = state.params | {kernel: jnp.zeros((3, 4))}
    with pytest.raises(ValueError, match="does not fit the config") as error:
        opened().restore(dataclasses.replace(state, params=params))
    shape = state.params[kernel].shape
    assert f"model.params.{kernel}: expected (3, 4), got {shape}" in str(error.value)
    assert f"{tmp_path / 'checkpoints' / '5' / 'config.json'}" in str(error.value)


def test_classes_in_another_order_are_refused(opened, monkeypatch):
    _save(opened(), 5)
    monkeypatch.setattr(_MODEL, "class_names", tuple(reversed(CLASS_NAMES)))
    with pytest.raises(ValueError, match="in another order: 10 differ, such as zero / nine, "):
        opened().restore(_state())


def test_arrays_of_the_fresh_state_make_room_for_the_restored_ones(opened):
    checkpoints, state = opened(), _state()
    assert checkpoints.restore(state) is None
    assert not state.step.is_deleted()
    _save(checkpoints, 5)
    checkpoints.restore(state)
    assert all(array.is_deleted() for array in jax.tree.leaves(state))


def test_a_step_can_be_saved_again(opened, tmp_path):
    checkpoints = opened()
    _save(checkpoints, 5)
    checkpoints.save(_state(5), dataclasses.replace(_PROGRESS, bad_images=(7,)))
    checkpoints.wait()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]
    _, progress = opened().restore(_state())
    assert progress.bad_images == (7,)


@pytest.mark.parametrize("left", ["5.orbax-checkpoint-tmp", "5"])
def test_a_step_that_was_being_saved_again_is_found(opened, tmp_path, left):
    _save(opened(), 5)
    folder = tmp_path / "checkpoints"
    (folder / "5").rename(folder / "5.replaced")
    (folder / left).mkdir()
    checkpoints = opened()
    assert [path.name for path in folder.iterdir()] == ["5"]
    assert int(checkpoints.restore(_state())[0].step) == 5


def test_a_network_that_was_set_aside_is_found_again(opened, tmp_path):
    folder = tmp_path / "best"
    save_only(folder / "5", _MODEL, config=small_configs.config(), card="# five\n")
    save_only(folder / "7", _MODEL, config=small_configs.config(), card="# seven\n")
    assert [path.name for path in folder.iterdir()] == ["7"]
    (folder / "7").rename(folder / "7.replaced")
    (folder / "7.incomplete").mkdir()
    assert opened().tidy(folder) == [folder / "7"]
    assert [path.name for path in folder.iterdir()] == ["7"]
    save_only(folder / "7", _MODEL, config=small_configs.config(), card="# again\n")
    assert (folder / "7" / "README.md").read_text() == "# again\n"


def test_another_tracker_is_refused(opened):
    _save(opened(), 5)
    state = dataclasses.replace(_state(), trackers={"mine": {"mean": jnp.zeros(10)}})
    with pytest.raises(ValueError, match="does not fit the config") as error:
        opened().restore(state)
    assert "training.trackers.mine.mean: expected (10,), got nothing" in str(error.value)
    assert "training.trackers.class_prior.mean: expected nothing, got (10,)" in str(error.value)


def test_average_that_was_not_kept_is_refused(opened):
    checkpoints = opened()
    checkpoints.save(_state(5, ema=False), Progress())
    checkpoints.wait()
    with pytest.raises(ValueError, match="training.ema_params.*: expected .*, got nothing"):
        checkpoints.restore(_state())


def test_failure_in_the_background_is_raised_once_and_leaves_no_checkpoint(
    opened, tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError("no space left on device")

    checkpoints = opened()
    _save(checkpoints, 5)
    monkeypatch.setattr(run_checkpoints, "seal", fail)
    checkpoints.save(_state(10), Progress())
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(_state(15), Progress())
    monkeypatch.undo()
    assert [p.name for p in sealed(tmp_path / "checkpoints")] == ["5"]
    assert int(opened().restore(_state())[0].step) == 5
