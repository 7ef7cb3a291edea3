"""Runs a converted network and its torch reference on the same random images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from converters.networks import find_system
from converters.systems.system import System
from mljax.models.classifier import Classifier

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How far apart the two sides are.

    Attributes:
      difference: the largest absolute difference of two outputs, in the precision that decided.
      largest: the largest absolute output of the torch side.
      image_size: side of the random images, in pixels.
      output: what was compared: a `logit`, or a `feature` of a network without classifier.
      float32_difference: where float32 was too coarse, so that float64 decided: the difference
        in float32; else None.
    """

    difference: float
    largest: float
    image_size: int
    output: str = "logit"
    float32_difference: float | None = None

    @property
    def passed(self) -> bool:
        """Whether they agree to 1e-4, relative to outputs that are larger than 1."""
        return self.difference <= TOLERANCE * max(1.0, self.largest)


def verify(
    model: Classifier, tensors: Mapping[str, Any], *, image_size: int
) -> Verification | None:
    """Compares `model` with torch over the tensors that it was made from.

    Both compute in float32. Where they differ, both compute again in float64: large weights that
    cancel out make float32 differ from float32, and only what remains in float64 is the
    conversion's.

    Args:
      model: the network.
      tensors: its state dict, of arrays or torch tensors.
      image_size: side of the random images, in pixels.

    Returns:
      None if its system has no torch reference for this network.

    Raises:
      ImportError: if torch is not installed.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    system = find_system(tensors)
    if system.logits is None:
        return None
    images = np.random.default_rng(0).uniform(size=(2, image_size, image_size, 3))
    images = images.astype(np.float32)
    theirs = _reference(system, model, tensors, images, "float32")
    if theirs is None:
        return None
    output = "logit" if model.spec.num_classes else "feature"
    found = _compare(_outputs(model, images), theirs, image_size, output)
    if found.passed:
        return found
    theirs = _reference(system, model, tensors, images, "float64")
    assert theirs is not None, "a reference that depends on the precision"
    with jax.enable_x64(True):
        ours = _outputs(_widen(model), images.astype(np.float64))
    return _compare(ours, theirs, image_size, output, float32_difference=found.difference)


def _compare(
    ours: np.ndarray,
    theirs: np.ndarray,
    image_size: int,
    output: str,
    *,
    float32_difference: float | None = None,
) -> Verification:
    return Verification(
        difference=float(np.abs(ours - theirs).max()),
        largest=float(np.abs(theirs).max()),
        image_size=image_size,
        output=output,
        float32_difference=float32_difference,
    )


def _reference(
    system: System,
    model: Classifier,
    tensors: Mapping[str, np.ndarray],
    images: np.ndarray,
    precision: str,
) -> np.ndarray | None:
    """Returns torch's outputs, computed in a precision."""
    try:
        import torch
    except ImportError as error:
        raise ImportError("--verify needs torch: pip install 'mljax[torch]'") from error
    assert system.logits is not None
    dtype = getattr(torch, precision)

    def to_tensor(array: np.ndarray) -> Any:  # noqa: ANN401
        tensor = torch.tensor(array)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    weights = {name: to_tensor(array) for name, array in tensors.items()}
    with torch.no_grad():
        found = system.logits(weights, to_tensor(images.transpose(0, 3, 1, 2)), model)
    return None if found is None else found.numpy()


def _outputs(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Returns the logits, or the first output of a head that has none."""

    def first(x: jax.Array) -> jax.Array:
        outputs = model(x)
        return outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))

    with jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
        return np.asarray(jax.jit(first)(images))


def _widen(model: Classifier) -> Classifier:
    """Returns the network with its arrays in float64."""
    graph, state = nnx.split(model)

    def widen(array: jax.Array) -> jax.Array:
        floats = jnp.issubdtype(array.dtype, jnp.floating)
        return jnp.asarray(np.asarray(array), jnp.float64) if floats else array

    return nnx.merge(graph, jax.tree.map(widen, state))
