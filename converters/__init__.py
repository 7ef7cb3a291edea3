"""Torch checkpoints of the published systems <-> mljax models.

`from_torch(source)` returns a model; `to_torch(model)` returns the state dict that the original
would load, and `to_numpy(model)` the same as arrays; `SYSTEMS` are the published code bases that
all three know; `python -m converters.convert SOURCE OUTPUT` writes a checkpoint folder.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.models import SYSTEMS, from_torch, to_numpy, to_torch

__all__ = ["SYSTEMS", "from_torch", "to_numpy", "to_torch"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Lazy, so that a part of the package is light to import.
    if name not in __all__:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    from converters import models

    return getattr(models, name)
