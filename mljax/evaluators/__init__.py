"""What is measured of a network on a split, by name; `mljax.evaluation.evaluate` says how."""

from mljax.config.part import table
from mljax.evaluators.kernels import Kernels
from mljax.evaluators.multilabel import Multilabel

EVALUATORS = table("evaluator", {"multilabel": Multilabel, "kernels": Kernels})
