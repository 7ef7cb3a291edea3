"""Runs networks over splits and image files."""

from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluation.predictions import Prediction, predict

__all__ = ["Prediction", "evaluate_model", "predict"]
