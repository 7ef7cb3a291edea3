"""How a run is asked to end early: by SIGTERM, SIGHUP or Ctrl-C."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")

# Seconds that the main thread gets to end by itself: while nothing needs saving, and otherwise
# after a second Ctrl-C.
GRACE, INSISTED_GRACE = 1.0, 10.0


class RunEndedError(Exception):
    """A run was asked to end."""


class Interruption:
    """Turns SIGTERM, SIGHUP and Ctrl-C into an error at a convenient point.

    A second Ctrl-C interrupts at once. Outside the main thread no signal is heard. A RunEndedError
    that leaves the context becomes SystemExit with 128 and the signal, as a shell has it. In a run
    of several processes all three tell JAX's preemption service, so that all processes end after
    the same step.

    Python hears a signal only when the main thread is back from native code, and a compilation can
    take minutes. So a thread watches, too. It ends the process when a signal comes while nothing
    needs saving (`at_once`), or 10 seconds after a second Ctrl-C, unless the main thread came back.

    Attributes:
      signal: the signal that came, or 0.
      at_once: whether nothing needs saving, as before the first step.
    """

    def __enter__(self) -> "Interruption":
        self.signal = 0
        self.at_once = True
        self._asked = 0
        self._answered = threading.Event()
        self._before: dict[int, Any] = {}
        self._watch = contextlib.ExitStack()
        if threading.current_thread() is not threading.main_thread():
            return self
        alone = jax.process_count() == 1
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            # Under nohup a run outlives its terminal. JAX listens to SIGTERM itself.
            nohup = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
            if not nohup and (alone or number != signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear if alone else _tell_all)
        if alone:
            self._watch.enter_context(self._watching())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._answered.set()
        self._watch.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is RunEndedError:
            raise SystemExit(128 + self.signal) from None

    def _hear(self, number: int, _: object) -> None:
        self.signal = number
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *arguments: Any) -> None:  # noqa: ANN401
        self._answered.set()
        before = self._before[signal.SIGINT]
        (before if callable(before) else signal.default_int_handler)(*arguments)

    def check(self) -> None:
        """Raises RunEndedError if the run is to end; all processes must ask equally often."""
        self._asked += 1
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal = signal.SIGTERM
        if self.signal:
            self._answered.set()
            raise RunEndedError

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, with a check before each."""
        for item in items:
            self.check()
            yield item

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Has signals reported to a thread, even while the main one is in native code."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            watcher = threading.Thread(target=self._watch_signals, args=(ours,), daemon=True)
            watcher.start()
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                theirs.close()
                watcher.join()

    def _watch_signals(self, numbers: socket.socket) -> None:
        interrupts, number, deadline = 0, 0, float("inf")
        while True:
            left = min(max(deadline - time.monotonic(), 0), 3600)
            if select.select([numbers], [], [], left)[0]:
                if not (heard := numbers.recv(1)):
                    return
                if heard[0] not in self._before:
                    continue
                number = heard[0]
                interrupts += number == signal.SIGINT
                if self.at_once:
                    deadline = min(deadline, time.monotonic() + GRACE)
                elif interrupts > 1:
                    deadline = min(deadline, time.monotonic() + INSISTED_GRACE)
            elif self._answered.is_set() or not (self.at_once or interrupts > 1):
                deadline = float("inf")
            elif time.monotonic() >= deadline:
                _leave(number)
                return


def _tell_all(_number: int, _: object) -> None:
    """Tells all processes of a run by the signal that JAX listens to; twice is at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGTERM)


def _leave(number: int) -> None:
    """Ends the process although its main thread does not answer; workers end with it."""
    with contextlib.suppress(Exception):
        sys.stderr.write("ended at once; the same command goes on from the last checkpoint\n")
        sys.stderr.flush()
    os._exit(128 + number)
