"""Settings of the whole suite: strict ranks, full float32 precision, quick compilation."""

import collections
import os
import tempfile
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
# Programs that are compiled in less than a second, the default, would be compiled by each test.
seconds = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
jax.config.update("jax_persistent_cache_min_compile_time_secs", float(seconds))
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = Path(tempfile.gettempdir()) / "mljax-test-cache"
    jax.config.update("jax_compilation_cache_dir", str(folder))


def pytest_collection_modifyitems(items):
    """Lets the files with the most slow tests come first: one of them would be the last to end.

    Chooses who has `little_optimization`, too.
    """
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], item.path))
    for item in items:
        if item.get_closest_marker("slow") or "f64" in item.name or "float64" in item.name:
            item.fixturenames.append("little_optimization")


@pytest.fixture(scope="module", autouse=True)
def compilation(request):
    """Compiles with little optimization, but as a user's what is compared with golden cases.

    See `little_optimization` for the exceptions.

    Most programs of the tests run only a few times. By an environment variable too, so that the
    processes that a test starts give the same bits as the test.
    """
    little = not hasattr(request.module, "golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(little)))
        jax.config.update("jax_disable_most_optimizations", little)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def little_optimization():
    """Compiles one test with little optimization though its module has golden cases.

    The slow ones, which are mostly networks of full size, and those of float64 prove the formulas;
    that a user's program gives the same numbers is proved by the quick ones in float32.
    """
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session", autouse=True)
def patience():
    """Keeps a signal that a test sends itself from ending the whole suite in a compilation."""
    from mljax.training import interruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interruption, "GRACE", 600.0)
        yield
