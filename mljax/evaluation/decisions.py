"""From logits to scores, and which of them are predicted."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mljax.evaluation.scores import sigmoid
from mljax.models.classifier import Classifier

# ASL's; used where neither a checkpoint nor a config nor the caller has another.
THRESHOLD = 0.8


@dataclass(frozen=True)
class Decision:
    """Above what a class is predicted.

    Attributes:
      score: one for all classes, or one for each, in [0, 1].
      logit: of each class where thresholds were calibrated: these decide then, since many logits
        have one score. None where the score decides.
    """

    score: float | Float[np.ndarray, " k"]
    logit: Float[np.ndarray, " k"] | None = None

    def __call__(self, logits: Float[np.ndarray, "*b k"]) -> Bool[np.ndarray, "*b k"]:
        """Returns which classes are predicted; the logits are float32."""
        if self.logit is None:
            return sigmoid(logits) > self.score
        return logits > self.logit


def decision_of(model: Classifier, threshold: float | None) -> Decision:
    """Returns how a network decides.

    Args:
      model: its calibrated thresholds decide unless a threshold is given.
      threshold: of all scores; None takes the network's own, and `THRESHOLD` if it has none.

    Raises:
      ValueError: for a threshold out of range.
    """
    if threshold is None and model.thresholds is not None:
        logits = np.array(model.thresholds, np.float32)
        return Decision(sigmoid(logits), logits)
    threshold = THRESHOLD if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1, got {threshold}")
    return Decision(threshold)
