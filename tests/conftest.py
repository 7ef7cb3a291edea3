"""Settings of the whole suite: strict ranks, full float32 precision, a compilation cache."""

import os
import tempfile
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = Path(tempfile.gettempdir()) / "mljax-test-cache"
    jax.config.update("jax_compilation_cache_dir", str(folder))


@pytest.fixture(scope="session", autouse=True)
def patience():
    """Keeps a signal that a test sends itself from ending the whole suite in a compilation."""
    from mljax.training import interruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interruption, "GRACE", 600.0)
        yield
