"""Asking a run to end: once for a convenient point, twice for at once."""

import signal
import threading

import pytest

from mljax.training.interruption import RunEndedError, Termination


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_at_the_next_check(number):
    with Termination() as termination:
        termination.check()
        signal.raise_signal(number)
        with pytest.raises(RunEndedError):
            termination.check()
    assert termination.signal == number


def test_a_second_interrupt_is_heard_at_once():
    with Termination():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_items_end_where_the_signal_came():
    seen = []
    with Termination() as termination, pytest.raises(RunEndedError):
        for item in termination.between(range(5)):
            seen.append(item)
            if item == 1:
                signal.raise_signal(signal.SIGTERM)
    assert seen == [0, 1]


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Termination():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_it_can_be_used_outside_the_main_thread():
    checked = []

    def use():
        with Termination() as termination:
            termination.check()
            checked.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert checked == [True]
