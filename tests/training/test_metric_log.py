"""The log of a run: JSON lines and TensorBoard files, cut back when a run resumes."""

import io
import json
import math

import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from mljax.terminal.progress import make_progress
from mljax.training.metric_log import MetricLog
from tests import runs


def _rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _write(folder, steps, *, resumed_step=0, value=1.0):
    log = MetricLog(folder, resumed_step=resumed_step)
    for step in steps:
        log.write(step, {"loss": value * step})
    log.close()


def test_rows_hold_the_scalars_of_their_step(tmp_path):
    log = MetricLog(tmp_path, resumed_step=0)
    log.write(3, {"loss": 1 / 3, "rate": 2})
    log.write(4, {"loss": 0.25})
    log.close()
    assert _rows(tmp_path) == [{"step": 3, "loss": 1 / 3, "rate": 2.0}, {"step": 4, "loss": 0.25}]


def test_a_row_is_on_disk_when_it_is_written(tmp_path):
    log = MetricLog(tmp_path, resumed_step=0)
    log.write(1, {"loss": 1.0})
    assert _rows(tmp_path) == [{"step": 1, "loss": 1.0}]
    log.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scalars_that_are_not_finite_are_null(tmp_path, value):
    log = MetricLog(tmp_path, resumed_step=0)
    log.write(1, {"loss": value})
    log.close()
    assert _rows(tmp_path) == [{"step": 1, "loss": None}]


def test_rows_after_the_resumed_step_are_written_anew(tmp_path):
    _write(tmp_path, range(1, 6))
    _write(tmp_path, range(4, 7), resumed_step=3, value=10.0)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in _rows(tmp_path)] == [1, 2, 3, 40, 50, 60]


def test_a_row_that_was_cut_short_is_dropped(tmp_path):
    _write(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    _write(tmp_path, [3], resumed_step=2)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    _write(tmp_path, range(1, 6))
    _write(tmp_path, range(4, 7), resumed_step=3, value=10.0)
    shown = runs.read_tensorboard(tmp_path / "tensorboard")
    assert shown == {"loss": {1: 1, 2: 2, 3: 3, 4: 40, 5: 50, 6: 60}}


def test_progress_shows_count_and_remaining_time():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with make_progress(console) as bar:
        bar.add_task("training", total=60, completed=20, status="loss 3")
        kinds = [type(column) for column in bar.columns]
    assert MofNCompleteColumn in kinds
    assert TimeRemainingColumn in kinds
    shown = console.file.getvalue()
    assert "20/60" in shown
    assert "loss 3" in shown


def test_progress_is_silent_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), force_terminal=False)
    with make_progress(console) as bar:
        bar.add_task("training", total=60, status="")
    assert console.file.getvalue() == ""
