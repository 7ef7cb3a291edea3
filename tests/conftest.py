"""Settings of the whole suite: strict ranks, full float32 precision, quick compilation."""

import collections
import contextlib
import os
import tempfile
from pathlib import Path

import jax
import pytest
from jax._src import compiler

# XLA's older emitters of fusions compile in about half the time. As a flag, so that a test and the
# processes that it starts share their compiled programs; a jaxlib that has no such flag would end
# the process.
NEW_EMITTERS = "xla_cpu_use_fusion_emitters"
HAS_BOTH_EMITTERS = jax.__version__.startswith("0.10.")
if HAS_BOTH_EMITTERS:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{NEW_EMITTERS}=false"
ALL_AS_A_USERS = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "0"
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
            # A list of its own: that of the other cases of a test is the same one.
            item.fixturenames = [*item.fixturenames, "little_optimization"]


@contextlib.contextmanager
def _optimization(*, little):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", little)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def compilation(request):
    """Compiles with little optimization, but as a user's what is compared with golden cases.

    See `little_optimization` for the exceptions.

    Most programs of the tests run only a few times. By an environment variable too, so that the
    processes that a test starts give the same bits as the test.
    """
    little = not ALL_AS_A_USERS and not hasattr(request.module, "golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(little)))
        with _optimization(little=little):
            yield


@pytest.fixture(scope="session", autouse=True)
def emitters():
    """Has XLA's newer emitters for what is compiled as a user's.

    Jax takes the option for single programs alone: hence by the function that it asks for all.
    """
    make_options = compiler.get_compile_options

    def get_compile_options(*args, env_options_overrides=None, **kwargs):
        if HAS_BOTH_EMITTERS and not jax.config.read("jax_disable_most_optimizations"):
            env_options_overrides = {NEW_EMITTERS: "True"} | (env_options_overrides or {})
        return make_options(*args, env_options_overrides=env_options_overrides, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", get_compile_options)
        yield


@pytest.fixture
def little_optimization():
    """Compiles one test with little optimization though its module has golden cases.

    The slow ones, which are mostly networks of full size, and those of float64 prove the formulas;
    that a user's program gives the same numbers is proved by the quick ones in float32.
    """
    # "highest" by another name: no function shares its compiled program with the other tests.
    with _optimization(little=True), jax.default_matmul_precision("float32"):
        yield


@pytest.fixture
def as_a_users():
    """Compiles one test as a user's program, where other emitters round too differently."""
    with _optimization(little=False):
        yield


@pytest.fixture(scope="session", autouse=True)
def patience():
    """Keeps a signal that a test sends itself from ending the whole suite in a compilation."""
    from mljax.training import interruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interruption, "GRACE", 600.0)
        yield
