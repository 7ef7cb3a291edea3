"""The loop over steps, with a step that only counts: what it saves when something fails."""

import contextlib
import dataclasses
import functools
import io
import signal

import jax
import numpy as np
import pytest
from rich.console import Console

from mljax.config import TrainConfig
from mljax.devices.mesh import make_mesh
from mljax.training import loop as loop_module
from mljax.training.interruption import Interruption
from mljax.training.loop import Loop
from mljax.training.progress import Progress
from mljax.training.run_checkpoints import RunCheckpoints
from tests.training.run_states import make_state


class _Checkpoints(RunCheckpoints):
    """Remembers the steps that were saved."""

    def __init__(self, fails=False):
        self.saved, self.fails, self.progress, self.waited = [], fails, None, 0

    def save(self, state, progress):
        if self.fails:
            raise OSError(28, "No space left on device", "/checkpoints")
        self.saved.append(int(state.step))
        self.progress = progress

    def wait(self):
        self.waited += 1


def _step(state, batch, key, hyperparameters):
    metrics = {"loss": jax.numpy.ones(()), "finite": jax.numpy.array(True)}
    return dataclasses.replace(state, step=state.step + 1), metrics


def _batches(*, fail_at=None, error=None, bad=()):
    @contextlib.contextmanager
    def batches(start_step=0):
        def rows():
            for step in range(start_step + 1, 100):
                if step == fail_at:
                    raise error
                valid = np.array([step not in bad])
                images = np.zeros((1, 2, 2, 3), np.float32)
                yield {"images": images, "valid": valid, "index": np.array([step], np.int32)}

        yield rows()

    return batches


def _loop(checkpoints, *, evaluate=lambda state, progress, _: progress, evaluate_every_steps=100):
    return Loop(
        program="a step",
        step=_step,
        state=make_state(0),
        progress=Progress(),
        schedule={},
        key=jax.random.key(0),
        mesh=make_mesh(jax.devices()[:1]),
        train=TrainConfig(epochs=1.0, checkpoint_every_steps=5, log_every_steps=100),
        steps_per_epoch=20,
        total_steps=20,
        num_records=100,
        name_of=lambda number: f"{number}.jpg",
        evaluate=evaluate,
        evaluate_every_steps=evaluate_every_steps,
        at_epoch=lambda state: None,
        checkpoints=checkpoints,
        log=None,
        batch_size=1,
        console=Console(file=io.StringIO(), width=120),
    )


@pytest.mark.parametrize(
    "error", [ChildProcessError("a worker"), OSError(28, "full", "/dev/shm"), ValueError("a.jpg")]
)
def test_an_error_of_the_data_saves_the_last_step_first(error):
    loop = _loop(checkpoints := _Checkpoints())
    with pytest.raises(type(error)) as raised, Interruption() as interruption:
        loop.go(_batches(fail_at=8, error=error), interruption)
    assert raised.value is error
    assert checkpoints.saved == [5, 7]
    assert checkpoints.waited == 1
    assert "saved step 7" in loop.console.file.getvalue()


def test_an_error_before_the_first_step_has_nothing_to_save():
    loop = _loop(checkpoints := _Checkpoints())
    with pytest.raises(ValueError, match=r"a\.jpg"), Interruption() as interruption:
        loop.go(_batches(fail_at=1, error=ValueError("a.jpg")), interruption)
    assert checkpoints.saved == []
    assert loop.console.file.getvalue() == ""


def test_an_error_of_the_evaluation_saves_the_last_step_first():
    def evaluate(*_):
        raise ValueError("b.jpg")

    loop = _loop(checkpoints := _Checkpoints(), evaluate=evaluate, evaluate_every_steps=7)
    with pytest.raises(ValueError, match=r"b\.jpg"), Interruption() as interruption:
        loop.go(_batches(), interruption)
    assert checkpoints.saved == [5, 7]
    # So that the run makes up for it.
    assert checkpoints.progress.evaluated == 0


def test_where_nothing_can_be_saved_the_first_error_is_raised_all_the_same():
    loop = _loop(_Checkpoints(fails=True))
    with pytest.raises(ChildProcessError, match="a worker"), Interruption() as interruption:
        loop.go(_batches(fail_at=3, error=ChildProcessError("a worker")), interruption)
    assert "the steps after step 0 could not be saved" in loop.console.file.getvalue()


def test_one_of_several_processes_does_not_save_alone(monkeypatch):
    loop = _loop(checkpoints := _Checkpoints())
    with pytest.raises(ValueError, match=r"a\.jpg"), Interruption() as interruption:
        batches = _batches(fail_at=3, error=ValueError("a.jpg"))
        monkeypatch.setattr(loop_module.jax, "process_count", lambda: 2)
        monkeypatch.setattr(interruption, "check", lambda: None)
        put = functools.partial(jax.tree.map, jax.numpy.asarray)
        monkeypatch.setattr(loop_module, "put_batch", lambda batch, _: put(batch))
        loop.go(batches, interruption)
    assert checkpoints.saved == []


def test_a_signal_saves_the_last_step():
    loop = _loop(checkpoints := _Checkpoints())
    with pytest.raises(SystemExit) as ended, Interruption() as interruption:
        error = ChildProcessError("the same signal ended it")
        # The handler runs before the error is met.
        batches = _batches(fail_at=8, error=error)
        interruption.check()
        step = loop.step

        def step_and_ask(state, *arguments):
            if int(state.step) == 6:
                signal.raise_signal(signal.SIGHUP)
            return step(state, *arguments)

        loop.step = step_and_ask
        loop.go(batches, interruption)
    assert ended.value.code == 128 + signal.SIGHUP
    assert checkpoints.saved == [5, 7]


def test_nothing_needs_saving_until_the_first_step_is_taken():
    seen = []
    loop = _loop(_Checkpoints())
    with Interruption() as interruption:
        step = loop.step

        def step_and_look(*arguments):
            seen.append(interruption.at_once)
            return step(*arguments)

        loop.step = step_and_look
        loop.go(_batches(), interruption)
    assert seen == [True] + [False] * 19


def test_bad_images_are_remembered_by_name():
    loop = _loop(checkpoints := _Checkpoints())
    loop.progress = Progress(bad_images=("from another list.jpg",))
    with Interruption() as interruption:
        loop.go(_batches(bad=(3, 12)), interruption)
    assert checkpoints.progress.bad_images == ("12.jpg", "3.jpg", "from another list.jpg")


def test_batches_that_are_read_ahead_and_not_trained_on_leave_no_trace():
    loop = _loop(checkpoints := _Checkpoints())
    loop.total_steps = 5
    with Interruption() as interruption:
        loop.go(_batches(bad=(5, 6), fail_at=7, error=ValueError("a.jpg")), interruption)
    assert checkpoints.saved == [5]
    assert checkpoints.progress.bad_images == ("5.jpg",)
