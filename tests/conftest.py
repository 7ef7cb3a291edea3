"""Settings of the whole suite: strict ranks, full float32 precision, a compilation cache."""

import tempfile
from pathlib import Path

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "mljax-test-cache"))
