"""What is measured of a network on a split, by name; `mljax.evaluation.evaluate` says how."""

from mljax.config.part import table
from mljax.evaluators.kernels import Kernels
from mljax.evaluators.multilabel import Multilabel
from mljax.evaluators.single_label import NearestNeighbors, SingleLabel

EVALUATORS = table(
    "evaluator",
    {
        "multilabel": Multilabel,
        "single_label": SingleLabel,
        "nearest_neighbors": NearestNeighbors,
        "kernels": Kernels,
    },
)
