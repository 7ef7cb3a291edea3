"""How a run is asked to end early, by SIGTERM."""

import signal

import jax
from jax.experimental import multihost_utils


class Termination:
    """Turns SIGTERM into a flag that all processes of a run see at the same step."""

    def __enter__(self) -> "Termination":
        self._asked = False
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def is_due(self, step: int) -> bool:
        """Returns whether to end after `step`: the same in all processes, which all must ask."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)
