"""Several processes that run one program."""

import jax
from jax.experimental import multihost_utils


def wait_for_all(name: str) -> None:
    """Waits until every process of a run has come to the point `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def join_processes(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    distributed: bool = False,
) -> None:
    """Joins the other processes of a run, if there are any.

    Args:
      coordinator: address of process 0 as HOST:PORT.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      distributed: what is not given is found where SLURM, Open MPI, Kubernetes or a TPU pod
        started the processes.

    Raises:
      ValueError: if only some are given, or none is found.
    """
    cluster = (coordinator, num_processes, process_id)
    if distributed:
        try:
            jax.distributed.initialize(*cluster)
        except ValueError as error:
            raise ValueError(
                f"--distributed: {error} Nothing of SLURM, Open MPI, Kubernetes or a TPU pod is "
                "in the environment; start the processes by one of these, or give --coordinator, "
                "--num-processes and --process-id"
            ) from error
    elif cluster != (None, None, None):
        if None in cluster:
            raise ValueError(
                "--coordinator, --num-processes and --process-id belong together; --distributed "
                "finds them under SLURM, Open MPI, Kubernetes and on TPU pods"
            )
        jax.distributed.initialize(*cluster)
