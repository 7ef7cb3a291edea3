"""A classifier is a backbone, then a head; this file makes them by name."""

import contextlib
import fnmatch
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mljax.backbones import BACKBONES
from mljax.config.part import Part, part, resolve
from mljax.config.schema import Preprocessing
from mljax.config.signatures import bind
from mljax.data.records import Classes
from mljax.heads import HEADS

__all__ = ["BACKBONES", "HEADS", "Classifier", "ModelSpec", "create_model", "list_models"]


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
      thresholds: of the logits, above which each class is predicted, or None if they were not
        calibrated.
      naming: whose names the weights had where they came from, or None; an export has them again.
      is_folded: whether constants stand in place of parameters; see `mljax.models.folding`.
    """

    def __init__(self, backbone: nnx.Module, head: nnx.Module, spec: ModelSpec) -> None:
        self.backbone: Any = backbone
        self.head: Any = head
        self.spec = spec
        self.class_names: tuple[str, ...] | None = nnx.static(None)
        self.preprocessing: Preprocessing | None = nnx.static(None)
        self.thresholds: tuple[float, ...] | None = nnx.static(None)
        self.naming: str | None = nnx.static(None)
        self.is_folded: bool = nnx.static(False)

    def __call__(
        self, images: Float[Array, "b h w 3"], *, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        """Returns the head's dict for preprocessed images; `rngs` feeds dropout in training.

        Raises:
          ValueError: if a layer fails, as of images that are too small, with its name.
        """
        with self._named("backbone", self.backbone, images):
            features = self.backbone(images)
            # Without what `pad_channels` adds; a backbone made by hand may not say its number.
            features = features[..., : getattr(self.backbone, "num_features", None)]
        with self._named("head", self.head, features):
            return self.head(features, rngs=rngs)

    @contextlib.contextmanager
    def _named(self, what: str, module: nnx.Module, given: Float[Array, "..."]) -> Iterator[None]:
        """Names the part of the network, and its innermost layer, in an error of shapes."""
        try:
            yield
        except (TypeError, ValueError) as error:
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            called = {id(frame.f_locals.get("self")) for frame in frames}
            paths = [path for path, layer in nnx.iter_modules(module) if id(layer) in called]
            layer = ".".join(map(str, (what, *max(paths, key=len, default=()))))
            name = getattr(self.spec, what).name
            raise ValueError(
                f"{what} {name}, layer {layer}, given {jnp.shape(given)}: {error}"
            ) from error


def create_model(
    backbone: str | Callable[..., Any],
    head: str | Callable[..., Any] = "linear",
    *,
    num_classes: int,
    head_kwargs: Mapping[str, Any] | None = None,
    backbone_kwargs: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    rngs: nnx.Rngs,
) -> Classifier:
    """Returns a freshly initialized classifier in eval mode.

    Args:
      backbone: a name that `list_models` knows, or a callable of your own.
      head: a name in `HEADS`, or a callable of your own.
      num_classes: k; 0 for a head without classes.
      head_kwargs: arguments of the head.
      backbone_kwargs: arguments of the backbone.
      dtype: of the computation, such as "bfloat16"; parameters and logits stay float32.
      rngs: seeds the initialization, as `nnx.Rngs(0)`.

    Raises:
      ValueError: for an unknown name or argument, with close matches.
    """
    spec = ModelSpec(
        backbone=part(backbone),
        head=part(head),
        num_classes=num_classes,
        dtype=dtype,
    )
    # Arguments in Python may be arrays, which no part holds.
    return _build(spec, rngs, backbone_kwargs or {}, head_kwargs or {})


def abstract_model(spec: ModelSpec) -> Classifier:
    """Returns the network of `spec` in eval mode with shapes in place of arrays.

    Raises:
      ValueError: for an unknown name or argument, with close matches.
    """
    kwargs = spec.backbone.kwargs, spec.head.kwargs
    return make_abstract(lambda rngs: _build(spec, rngs, *kwargs))


def make_abstract(make: Callable[[nnx.Rngs], Any]) -> Any:  # noqa: ANN401
    """Returns the module that `make(rngs)` returns, with shapes in place of arrays."""

    def unseeded() -> Any:  # noqa: ANN401
        rngs: Any = nnx.Rngs()
        rngs.default = _OneKey(0, tag="default")
        return make(rngs)

    return nnx.eval_shape(unseeded)


class _OneKey(nnx.RngStream):
    """A stream of one key, for shapes.

    Flax's counts its keys. Each traced count searches through those before: six seconds for the
    thousand arrays of an EfficientNetV2-L.
    """

    def __call__(self) -> Array:
        return self.key[...]


def _build(
    spec: ModelSpec,
    rngs: nnx.Rngs,
    backbone_kwargs: Mapping[str, Any],
    head_kwargs: Mapping[str, Any],
) -> Classifier:
    make_backbone = resolve(spec.backbone.name, "backbone")
    bind(make_backbone, backbone_kwargs, f"backbone {spec.backbone.name}")
    make_head = resolve(spec.head.name, "head")
    if spec.num_classes < getattr(make_head, "classifies", True):
        raise ValueError(f"num_classes must be at least 1, got {spec.num_classes}")
    bind(make_head, head_kwargs, f"head {spec.head.name}")
    backbone = make_backbone(**backbone_kwargs, dtype=spec.dtype, rngs=rngs)
    head: Any = make_head(
        backbone.num_features, spec.num_classes, **head_kwargs, dtype=spec.dtype, rngs=rngs
    )
    # Arrays among the arguments travel with the other arrays, so that a checkpoint needs no file.
    stored = {**head_kwargs, **getattr(head, "stored_arguments", {})}
    spec = replace(
        spec,
        backbone=Part(name=spec.backbone.name, kwargs=dict(backbone_kwargs)),
        head=Part(name=spec.head.name, kwargs=stored),
    )
    model = Classifier(backbone, head, spec)
    model.eval()
    return model


def for_classes(model: Classifier, classes: Classes) -> Classifier:
    """Returns the network for classes that it may not have been trained on, sharing the parameters.

    A head that depends on its classes says how by its method `for_classes(classes)`; any other is
    returned as it is.

    Args:
      model: any network.
      classes: k names, and what is known of them.

    Raises:
      ValueError: for a folded network, or for classes with vectors that do not fit the head or that
        it cannot read.
    """
    if model.is_folded:
        raise ValueError("a folded network serves no other classes; take the one before")
    if hasattr(model.head, "for_classes"):
        head = model.head.for_classes(classes)
    elif classes.vectors is None:
        return model
    else:
        raise ValueError(
            f"the data have a vector for each class, which a {model.spec.head.name} head cannot "
            "read: take a head that has for_classes"
        )
    spec = replace(model.spec, num_classes=len(classes.names))
    other = Classifier(model.backbone, head, spec)
    other.class_names, other.preprocessing = classes.names, model.preprocessing
    other.naming = model.naming
    if classes.names == model.class_names:
        other.thresholds = model.thresholds
    return other


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the backbones that match a shell pattern, such as `*tresnet*`."""
    return sorted(fnmatch.filter(BACKBONES, pattern))
