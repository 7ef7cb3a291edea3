"""The life of data workers, and of their shared memory."""

import os
import signal
import time

import pytest

from mljax.data import worker_memory
from mljax.data.worker_memory import free_leaked_memory, memory_token
from tests import runs

_TRAINING = """
import multiprocessing, os, sys, time
import numpy as np
from mljax.config.schema import Preprocessing
from mljax.data.pipeline import train_batches
from mljax.data.records import Records
from mljax.data.worker_memory import memory_token

if __name__ == "__main__":
    images = np.zeros((8, 64, 64, 3), np.uint8)
    records = Records(images=images, labels=np.ones((8, 1), np.int8), class_names=("a",))
    options = {"preprocessing": Preprocessing(image_size=64), "batch_size": 4, "seed": 0}
    batches = train_batches(records, num_workers=2, **options)
    next(batches), next(batches)
    print("ready", flush=True)
    if "--kill" not in sys.argv:
        time.sleep(60)
    for worker in multiprocessing.active_children():
        worker.kill()
    try:
        for _ in range(50):
            next(batches)
    except ChildProcessError as error:
        print(error, memory_token(), sep="\\n")
"""


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_memory, "MEMORY", tmp_path)
    memory_token.cache_clear()
    yield tmp_path
    memory_token.cache_clear()


def test_memory_of_the_dead_is_removed_and_that_of_the_living_is_not(memory):
    token = memory_token()
    kept = {f"{token}.lock", f"{token}-1", "psm_1", "mljax.txt"}
    for name in {*kept, "mljax-dead.lock", "mljax-dead-1", "mljax-dead-2"}:
        (memory / name).touch()
    removed = free_leaked_memory()
    assert {path.name for path in removed} == {"mljax-dead.lock", "mljax-dead-1", "mljax-dead-2"}
    assert {path.name for path in memory.iterdir()} == kept


def test_without_shared_memory_there_is_no_token(memory, monkeypatch):
    monkeypatch.setattr(worker_memory, "MEMORY", memory / "absent")
    assert memory_token() == ""


def _children(pid):
    found = []
    for stat in os.listdir("/proc"):
        if stat.isdigit():
            try:
                with open(f"/proc/{stat}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            found += [int(stat)] * (parent == pid)
    return found


def _alive(pids):
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}/fd")]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at /proc")
@pytest.mark.parametrize("with_tracker", [False, True])
def test_workers_end_with_a_killed_process_and_leave_no_memory(tmp_path, with_tracker):
    script = tmp_path / "training.py"
    script.write_text(_TRAINING)
    before = set(os.listdir("/dev/shm"))
    process = runs.start(script)
    assert process.stdout.readline() == "ready\n"
    children = _children(process.pid)
    assert len(children) >= 2
    left = [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("mljax-")]
    assert any(not name.endswith(".lock") for name in left)
    process.send_signal(signal.SIGKILL)
    if with_tracker:
        # Out of memory, say: nobody is left to clean up.
        for pid in children:
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=30)
    end = time.monotonic() + 20
    while _alive(children) and time.monotonic() < end:
        time.sleep(0.1)
    assert _alive(children) == []
    free_leaked_memory()
    assert not set(left) & set(os.listdir("/dev/shm"))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="looks at /dev/shm")
def test_killed_workers_cost_one_line_and_leave_no_memory(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(_TRAINING)
    process = runs.start(script, "--kill")
    ready, error, token = process.communicate(timeout=120)[0].splitlines()
    assert ready == "ready"
    assert "a data worker ended by SIGKILL" in error
    assert not list(worker_memory.MEMORY.glob(f"{token}*"))
