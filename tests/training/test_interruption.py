"""Asking a run to end: once for a convenient point, twice for at once."""

import signal
import threading

import pytest

from mljax.training.interruption import Interruption, RunEndedError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interruption():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


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
