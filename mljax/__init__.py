"""mljax: multi-label image classification in JAX, proven equal to the published PyTorch systems."""

from typing import TYPE_CHECKING, Any

from mljax import data, evaluation, evaluators, losses, metrics, trackers
from mljax.checkpoints.checkpoint import load_model
from mljax.config.part import part
from mljax.models.classifier import Classifier, create_model, list_models

if TYPE_CHECKING:
    from mljax.train import fit

__version__ = "0.2.0"

__all__ = [
    "Classifier",
    "create_model",
    "data",
    "evaluation",
    "evaluators",
    "fit",
    "list_models",
    "load_model",
    "losses",
    "metrics",
    "part",
    "trackers",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Lazy, so that `python -m mljax.train` is not imported before it runs.
    if name != "fit":
        raise AttributeError(f"module 'mljax' has no attribute {name!r}")
    from mljax.train import fit

    return fit
