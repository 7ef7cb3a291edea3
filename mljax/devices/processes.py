"""Several processes that run one program."""

import jax
from jax.experimental import multihost_utils


def wait_for_all(name: str) -> None:
    """Waits until every process of a run has come to the point `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def join_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins the other processes of a run, if there are any.

    Args:
      coordinator: address of process 0 as HOST:PORT.
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      ValueError: if only some are given.
    """
    cluster = (coordinator, num_processes, process_id)
    if cluster == (None, None, None):
        return
    if None in cluster:
        raise ValueError("--coordinator, --num-processes and --process-id belong together")
    jax.distributed.initialize(*cluster)
