"""Asking a run to end: once for a convenient point, twice for at once."""

import contextlib
import hashlib
import os
import signal
import threading
import time

import pytest

from mljax.training import interruption as interruption_module
from mljax.training.interruption import Interruption, RunEndedError

SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_run_at_the_next_check(number):
    with Interruption() as interruption:
        interruption.check()
        signal.raise_signal(number)
        with pytest.raises(RunEndedError):
            interruption.check()
    assert interruption.signal == number


def test_a_second_interrupt_is_heard_at_once():
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_items_end_where_the_signal_came():
    seen = []
    with Interruption() as interruption, pytest.raises(RunEndedError):
        for item in interruption.between(range(5)):
            seen.append(item)
            if item == 1:
                signal.raise_signal(signal.SIGTERM)
    assert seen == [0, 1]


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_run_that_does_not_end_by_itself_exits_as_a_shell_would():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        interruption.check()
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_it_can_be_used_outside_the_main_thread():
    checked = []

    def use():
        with Interruption() as interruption:
            interruption.check()
            checked.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert checked == [True]


def test_under_nohup_a_closed_terminal_is_not_heard():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            interruption.check()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_in_several_processes_each_signal_is_told_to_all(monkeypatch, number):
    # JAX's preemption service listens to SIGTERM, and tells the other processes.
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    monkeypatch.setattr(interruption_module.jax, "process_count", lambda: 2)
    try:
        with Interruption():
            signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["SIGTERM"]


@pytest.fixture
def left(monkeypatch):
    """Returns the signals at which the process would have ended, with hardly any patience."""
    signals = []
    monkeypatch.setattr(interruption_module, "_leave", signals.append)
    monkeypatch.setattr(interruption_module, "GRACE", 0.05)
    monkeypatch.setattr(interruption_module, "INSISTED_GRACE", 0.2)
    return signals


def _receive_in_native_code(*numbers):
    """Receives signals while the main thread is in a call that lets other threads run."""

    def send():
        for number in numbers:
            time.sleep(0.05)
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    # It does not end at a signal, as a compilation does not.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)
    sender.join()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_in_native_code_ends_the_process_while_nothing_needs_saving(left, number):
    with Interruption():
        _receive_in_native_code(number)
    assert left == [number]


def test_steps_that_need_saving_are_not_given_up_for_a_signal_in_native_code(left):
    with Interruption() as interruption:
        interruption.at_once = False
        _receive_in_native_code(signal.SIGTERM)
        with pytest.raises(RunEndedError):
            interruption.check()
    assert left == []


def test_a_second_interrupt_in_native_code_ends_the_process(left):
    with Interruption() as interruption, contextlib.suppress(KeyboardInterrupt):
        interruption.at_once = False
        _receive_in_native_code(signal.SIGINT, signal.SIGINT)
    assert left == [signal.SIGINT]


def test_a_run_that_answers_ends_by_itself(left):
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(RunEndedError):
            interruption.check()
        time.sleep(0.3)
    assert left == []


def test_signals_of_others_are_left_alone(left):
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Interruption():
            signal.raise_signal(signal.SIGUSR1)
            time.sleep(0.3)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert left == []
