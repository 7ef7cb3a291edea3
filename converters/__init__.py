"""Torch checkpoints of the published systems <-> mljax models.

`from_torch(source)` returns a model; `to_torch(model)` returns the state dict that the original
would load; `python -m converters.convert SOURCE OUTPUT` writes a checkpoint folder.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.convert import from_torch, to_torch

__all__ = ["from_torch", "to_torch"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Lazy, so that `python -m converters.convert` does not import the module twice.
    if name not in __all__:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    from converters import convert

    return getattr(convert, name)
