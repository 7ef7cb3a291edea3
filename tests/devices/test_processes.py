"""How processes of one run find each other; tests/test_train.py runs two."""

import jax
import pytest

from mljax.devices.processes import join_processes


def test_a_run_alone_joins_none(monkeypatch):
    monkeypatch.delattr(jax.distributed, "initialize")
    join_processes(None, None, None)


def test_distributed_says_where_it_looked(monkeypatch):
    def initialize(*cluster):
        assert cluster == (None, None, None)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"defined. Nothing of SLURM, Open MPI, Kubernetes"):
        join_processes(None, None, None, distributed=True)
