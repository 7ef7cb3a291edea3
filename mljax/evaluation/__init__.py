"""Runs networks over splits and image files."""

from mljax.evaluation.evaluate import evaluate_model
from mljax.evaluation.predictions import Prediction, Predictor, predict

__all__ = ["Prediction", "Predictor", "evaluate_model", "predict"]
