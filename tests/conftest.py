"""Settings of the whole suite: strict ranks, full float32 precision, a compilation cache."""

import os
import tempfile
from pathlib import Path

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = Path(tempfile.gettempdir()) / "mljax-test-cache"
    jax.config.update("jax_compilation_cache_dir", str(folder))
