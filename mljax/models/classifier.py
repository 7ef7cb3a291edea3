"""A classifier is a backbone, then a head; this file makes them by name."""

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mljax.backbones import BACKBONES
from mljax.config.binding import bind, lookup
from mljax.config.schema import Part, Preprocessing
from mljax.heads import HEADS

Arrays = dict[str, Any]

# Where a zero-shot head keeps the word vectors of its classes.
WORD_VECTORS = "head.word_vectors"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What `create_model` needs to make a network again; it is stored in checkpoints."""

    backbone: Part
    head: Part
    num_classes: int
    dtype: str | None = None


class Classifier(nnx.Module):
    """A backbone and a head, with what a user needs to read the logits.

    Attributes:
      backbone: images to feature map.
      head: feature map to a dict with `logits`.
      spec: makes this network again.
      class_names: the k names in the order of the logits, or None.
      preprocessing: how image files become the input, or None.
    """

    def __init__(self, backbone: nnx.Module, head: nnx.Module, spec: ModelSpec) -> None:
        self.backbone: Any = backbone
        self.head: Any = head
        self.spec = spec
        self.class_names: tuple[str, ...] | None = nnx.static(None)
        self.preprocessing: Preprocessing | None = nnx.static(None)

    def __call__(
        self, images: Float[Array, "b h w 3"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns the head's dict for preprocessed images; `rngs` feeds dropout in training."""
        return self.head(self.backbone(images), rngs=rngs)


def create_model(
    backbone: str,
    head: str = "linear",
    *,
    num_classes: int,
    head_kwargs: Mapping[str, Any] | None = None,
    backbone_kwargs: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    rngs: nnx.Rngs,
) -> Classifier:
    """Returns a freshly initialized classifier in eval mode.

    Args:
      backbone: a name that `list_models` knows.
      head: a name in `mljax.heads.HEADS`.
      num_classes: k.
      head_kwargs: arguments of the head.
      backbone_kwargs: arguments of the backbone.
      dtype: of the computation, such as "bfloat16"; parameters and logits stay float32.
      rngs: seeds the initialization, as `nnx.Rngs(0)`.

    Raises:
      ValueError: for an unknown name or argument, with close matches.
    """
    spec = ModelSpec(
        backbone=Part(name=backbone, kwargs=dict(backbone_kwargs or {})),
        head=Part(name=head, kwargs=dict(head_kwargs or {})),
        num_classes=num_classes,
        dtype=dtype,
    )
    _check(spec)
    return _build(spec, rngs)


def abstract_model(spec: ModelSpec) -> Classifier:
    """Returns the network of `spec` in eval mode with shapes in place of arrays.

    Raises:
      ValueError: for an unknown name or argument, with close matches.
    """
    _check(spec)
    return nnx.eval_shape(lambda: _build(spec, nnx.Rngs(0)))


def _check(spec: ModelSpec) -> None:
    if spec.num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {spec.num_classes}")
    make_backbone = lookup(BACKBONES, spec.backbone.name, "backbone")
    bind(make_backbone, spec.backbone.kwargs, f"backbone {spec.backbone.name}")
    make_head = lookup(HEADS, spec.head.name, "head")
    bind(make_head, spec.head.kwargs, f"head {spec.head.name}")


def _build(spec: ModelSpec, rngs: nnx.Rngs) -> Classifier:
    make_backbone: Callable[..., Any] = BACKBONES[spec.backbone.name]
    backbone = make_backbone(**spec.backbone.kwargs, dtype=spec.dtype, rngs=rngs)
    head: Any = HEADS[spec.head.name](
        backbone.num_features, spec.num_classes, **spec.head.kwargs, dtype=spec.dtype, rngs=rngs
    )
    kwargs = dict(spec.head.kwargs)
    if kwargs.pop("word_vectors", None) is not None:
        # The vectors themselves travel with the other arrays, so that a checkpoint needs no file.
        kwargs["word_vector_size"] = head.word_vectors.shape[1]
        spec = replace(spec, head=Part(name=spec.head.name, kwargs=kwargs))
    model = Classifier(backbone, head, spec)
    model.eval()
    return model


def split_model(model: Classifier) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Returns a network's structure, its parameters and its other arrays (running statistics).

    The arrays are flat dicts by dotted path, such as `head.linear.kernel`.
    """
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return graph, _flat(params), _flat(rest)


def merge_model(graph: nnx.GraphDef, params: Arrays, stats: Arrays) -> Classifier:
    """Returns the network again; the inverse of `split_model`."""
    flat: dict[Any, Any] = {
        tuple(int(key) if key.isdigit() else key for key in path.split(".")): array
        for path, array in {**params, **stats}.items()
    }
    return nnx.merge(graph, nnx.from_flat_state(flat))


def with_classes(
    model: Classifier, class_names: tuple[str, ...], word_vectors: Float[np.ndarray, "k w"]
) -> Classifier:
    """Returns a zero-shot network for other classes, sharing the parameters.

    Args:
      model: its head has word vectors.
      class_names: the k names.
      word_vectors: one for each of them.

    Raises:
      ValueError: for a head that takes none, or vectors of another width.
    """
    if not hasattr(model.head, "with_word_vectors"):
        raise ValueError(
            f"the data have word vectors, which a {model.spec.head.name} head cannot read: take an "
            "ml_decoder head with word_vector_size"
        )
    head = model.head.with_word_vectors(word_vectors)
    spec = replace(model.spec, num_classes=len(class_names))
    other = Classifier(model.backbone, head, spec)
    other.class_names, other.preprocessing = class_names, model.preprocessing
    return other


def _flat(state: nnx.State) -> Arrays:
    flat = nnx.to_flat_state(state)
    return {".".join(map(str, path)): variable.get_value() for path, variable in flat}


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the backbones that match a shell pattern, such as `*tresnet*`."""
    return sorted(fnmatch.filter(BACKBONES, pattern))
