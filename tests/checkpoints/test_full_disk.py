"""A full disk is one error in one line."""

import asyncio
import errno
import logging
import sys
import types

import pytest

from mljax.checkpoints import full_disk
from mljax.checkpoints.full_disk import full_disk_as_one_error

_LONG = 'RESOURCE_EXHAUSTED: Error writing "params/0": No space left on device [os_error_code=28]'


@pytest.mark.parametrize("error", [ValueError(_LONG), OSError(errno.ENOSPC, _LONG)])
def test_a_full_disk_names_the_path(tmp_path, error):
    with (
        pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'") as raised,
        full_disk_as_one_error(tmp_path),
    ):
        raise error
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.ENOSPC, "full", "/a/file")])
def test_other_errors_and_those_that_name_a_file_are_raised_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, full_disk_as_one_error(tmp_path):
        raise error
    assert raised.value is error


def test_what_is_logged_of_a_full_disk_is_left_out_and_all_else_is_not(tmp_path, caplog):
    with full_disk_as_one_error(tmp_path):
        for text in (_LONG, "Event loop is closed", "something else"):
            logging.getLogger("absl").error("a thread ended: %s", text)
    assert [record.getMessage() for record in caplog.records] == ["a thread ended: something else"]


def test_uncaught_errors_of_python_are_still_shown(tmp_path, capsys):
    with full_disk_as_one_error(tmp_path):
        pass
    try:
        raise RuntimeError("Event loop is closed")
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert "Event loop is closed" in capsys.readouterr().err


@pytest.mark.parametrize("hook", ["excepthook", "unraisablehook"])
def test_what_native_threads_say_to_a_closed_loop_is_left_out(tmp_path, monkeypatch, hook, capsys):
    for name in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, name, getattr(sys, f"__{name}__"))
    full_disk._ignore_what_follows.cache_clear()
    with full_disk_as_one_error(tmp_path):
        pass
    loop = asyncio.new_event_loop()
    loop.close()
    try:
        loop.call_soon_threadsafe(print)
    except RuntimeError as error:
        # A native thread's call has no frame of Python before asyncio's.
        raised = RuntimeError, error, error.__traceback__.tb_next
    fields = "exc_type", "exc_value", "exc_traceback", "err_msg", "object"
    unraisable = types.SimpleNamespace(**dict(zip(fields, (*raised, None, None), strict=True)))
    getattr(sys, hook)(*(raised if hook == "excepthook" else (unraisable,)))
    assert capsys.readouterr().err == ""
