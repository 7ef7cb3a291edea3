"""Runs networks over splits and image files."""

from mljax.evaluation.embeddings import Embeddings, embed
from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluation.predictions import Prediction, Predictor, predict

__all__ = ["Embeddings", "Prediction", "Predictor", "embed", "evaluate_model", "predict"]
