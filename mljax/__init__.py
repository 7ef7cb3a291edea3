"""mljax: multi-label image classification in JAX, proven equal to the published PyTorch systems."""

from mljax.checkpoints.checkpoint import load_model
from mljax.models.classifier import Classifier, create_model, list_models

__all__ = ["Classifier", "create_model", "list_models", "load_model"]
