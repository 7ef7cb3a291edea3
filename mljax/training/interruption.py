"""How a run is asked to end early: by SIGTERM, or by Ctrl-C."""

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")


class RunEndedError(Exception):
    """A run was asked to end."""


class Interruption:
    """Turns SIGTERM, or in a run of one process Ctrl-C, into an error at a convenient point.

    A second Ctrl-C interrupts at once. Outside the main thread no signal is heard. A RunEndedError
    that leaves the context becomes SystemExit with 128 and the signal, as a shell has it.

    Attributes:
      signal: the signal that came, or 0.
    """

    def __enter__(self) -> "Interruption":
        self.signal = 0
        self._asked = 0
        self._before: dict[int, Any] = {}
        alone = jax.process_count() == 1
        if alone and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is RunEndedError:
            raise SystemExit(128 + self.signal) from None

    def _hear(self, number: int, _: object) -> None:
        self.signal = number
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])

    def check(self) -> None:
        """Raises RunEndedError if the run is to end; all processes must ask equally often."""
        self._asked += 1
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self.signal = signal.SIGTERM
        if self.signal:
            raise RunEndedError

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, with a check before each."""
        for item in items:
            self.check()
            yield item
