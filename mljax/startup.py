"""What every command does before it uses JAX."""

from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in `~/.cache/mljax/compiled`.

    `JAX_COMPILATION_CACHE_DIR` names another folder.
    """
    if jax.config.jax_compilation_cache_dir is None:
        folder = Path.home() / ".cache" / "mljax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
