"""The folder of a run: one run at a time, and nothing in it is lost by a fresh start."""

import os
import signal
import socket
import time

import pytest

from mljax.training.workdir import LOCK, clear, hold, keep_log, left_as_it_was
from tests import runs

_HOLDER = """
import pathlib, sys, time
from mljax.training.workdir import hold

with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_and_told_who_holds_the_workdir(tmp_path):
    with hold(tmp_path / "new"):
        with pytest.raises(ValueError, match="is in use") as error, hold(tmp_path / "new"):
            pass
    holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d')}"
    for text in (str(tmp_path / "new"), holder):
        assert text in str(error.value)


def test_a_workdir_is_free_again_after_the_run(tmp_path):
    for _ in range(2):
        with hold(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.slow
def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    process = runs.start("-c", _HOLDER, tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"process {process.pid} on"), hold(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with hold(tmp_path):
        pass


def test_a_restart_moves_the_run_before_and_deletes_nothing(tmp_path):
    for _ in range(2):
        (tmp_path / "checkpoints" / "5").mkdir(parents=True)
        (tmp_path / "best").mkdir()
        for name in ("metrics.jsonl", "config.json", "mine.txt", "checkpoints/5/model.json"):
            (tmp_path / name).write_text(name)
        aside = clear(tmp_path)
    assert aside == tmp_path / "before-restart-2"
    left = {"mine.txt", "before-restart", "before-restart-2"}
    assert {path.name for path in tmp_path.iterdir()} == left
    for folder in (aside, tmp_path / "before-restart"):
        assert (folder / "checkpoints/5/model.json").read_text() == "checkpoints/5/model.json"
        assert (folder / "metrics.jsonl").read_text() == "metrics.jsonl"


def test_a_restart_in_an_empty_folder_moves_nothing(tmp_path):
    assert clear(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_log_before_a_damage_is_kept(tmp_path):
    assert keep_log(tmp_path) is None
    for text in ("first", "second"):
        (tmp_path / "metrics.jsonl").write_text(text)
        keep_log(tmp_path)
    assert (tmp_path / "metrics.before-damage.jsonl").read_text() == "first"
    assert (tmp_path / "metrics.before-damage-2.jsonl").read_text() == "second"


def test_folders_that_were_made_on_trial_are_removed(tmp_path):
    with left_as_it_was(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
