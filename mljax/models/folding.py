"""Networks for inference, in which what no image changes is computed once."""

from typing import Any

from flax import nnx

from mljax.models.classifier import Classifier


def fold(model: Classifier) -> Classifier:
    """Returns a network whose outputs are equal, with what no image changes computed once.

    A module says how by its method `folded()`, which returns the one that takes its place: a
    convolution that has taken in its batch norm, or a head with classifiers in place of a graph.
    Outputs differ by the rounding alone. The result is for inference: it is not trained, and
    `save_model` refuses it. The evaluations during a training do not fold, since the weights change
    between them.

    Args:
      model: in eval mode.
    """
    if model.is_folded:
        return model
    other = _folded(nnx.clone(model, variables=False))
    other.is_folded = True
    return other


def _folded(module: Any) -> Any:  # noqa: ANN401
    for name, child in list(nnx.iter_children(module)):
        if isinstance(child, nnx.Variable) or (changed := _folded(child)) is child:
            continue
        if isinstance(name, int):
            module[name] = changed
        else:
            setattr(module, str(name), changed)
    return module.folded() if hasattr(module, "folded") else module
