"""What every command does before it uses JAX."""

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in `~/.cache/mljax/compiled`.

    `JAX_COMPILATION_CACHE_DIR` names another folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path.home() / ".cache" / "mljax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
