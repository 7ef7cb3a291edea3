"""The CPUs of this machine."""

import os


def count_cpus() -> int:
    """Returns how many CPUs this process may use, where the system tells, else those there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
