"""What a file for serving computes: a function of the images alone."""

import dataclasses
import importlib
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Float, UInt8

from mljax.config.schema import Preprocessing
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, abstract_model
from mljax.models.folding import fold

Outputs = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation:
    """A folded network as a function.

    Attributes:
      function: images to outputs by name; it can be traced.
      images: their shape, in which the batch is a symbol, and their type.
      metadata: what a user needs to know of input and output, texts by name.
    """

    function: Callable[[Array], Outputs]
    images: jax.ShapeDtypeStruct
    metadata: dict[str, str]


def make_computation(
    model: Classifier,
    *,
    preprocessing: Preprocessing,
    normalize: bool = False,
    reads: Sequence[str] = (),
    thresholds: Sequence[float] = (),
) -> Computation:
    """Returns what a file computes: in float32, with what no image changes computed once.

    Args:
      model: in eval mode, not folded.
      preprocessing: tells the size of the images.
      normalize: read pixels as they are decoded, uint8 `[b, h, w, 3]`, and normalize them inside;
        otherwise the images are float32 and normalized.
      reads: names of the outputs; none is `logits`, or all of a head that has none.
      thresholds: of the logits, for the metadata.
    """
    network = fold(in_float32(model))
    (batch,) = export.symbolic_shape("b")
    dtype = jnp.uint8 if normalize else jnp.float32
    images = jax.ShapeDtypeStruct((batch, *preprocessing.height_width, 3), dtype)
    if not reads:
        given = jax.eval_shape(network, jax.ShapeDtypeStruct(images.shape, jnp.float32))
        reads = ("logits",) if "logits" in given else tuple(sorted(given))

    def function(images: Float[Array, "b h w 3"] | UInt8[Array, "b h w 3"]) -> Outputs:
        found = network(_normalized(images, preprocessing) if normalize else images)
        return {name: found[name] for name in reads}

    metadata = {
        "network": f"{model.spec.backbone.name} + {model.spec.head.name}",
        "input": "uint8 RGB pixels" if normalize else "normalized RGB, float32",
        "preprocessing": json.dumps(dataclasses.asdict(preprocessing)),
        "outputs": json.dumps(reads),
        "class_names": json.dumps(model.class_names),
        "thresholds": json.dumps(list(thresholds)),
    }
    return Computation(function=function, images=images, metadata=metadata)


def _normalized(
    pixels: UInt8[Array, "b h w 3"], preprocessing: Preprocessing
) -> Float[Array, "b h w 3"]:
    """Returns what `mljax.data.images.normalize` does."""
    scaled = pixels.astype(jnp.float32) / 255
    mean, std = (jnp.asarray(x, jnp.float32) for x in (preprocessing.mean, preprocessing.std))
    return (scaled - mean[None, None, None]) / std[None, None, None]


def in_float32(model: Classifier) -> Classifier:
    """Returns the network, sharing its parameters, with float32 as the type of the computation."""
    if model.spec.dtype is None:
        return model
    plain = abstract_model(dataclasses.replace(model.spec, dtype=None))
    graph, _, _ = split_model(plain)
    _, params, statistics = split_model(model)
    return merge_model(graph, params, statistics)


def package(name: str, extra: str) -> Any:  # noqa: ANN401
    """Returns an optional package.

    Raises:
      ImportError: saying how to install it.
    """
    try:
        with warnings.catch_warnings():
            # OpenVINO forks a process that reports its import, which jax warns of.
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is not installed: pip install 'mljax[{extra}]'") from error
