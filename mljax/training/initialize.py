"""Weights of a checkpoint as the start of a training."""

from pathlib import Path

from flax import nnx
from jaxtyping import Array

from mljax.checkpoints.checkpoint import load_model
from mljax.config.part import Part
from mljax.config.schema import Preprocessing
from mljax.data.records import Classes
from mljax.models.arrays import merge_model, split_model
from mljax.models.classifier import Classifier, create_model, for_classes


def make_model(
    backbone: Part,
    head: Part,
    classes: Classes,
    *,
    dtype: str = "float32",
    preprocessing: Preprocessing,
    seed: int,
    init_from: str | None = None,
) -> tuple[Classifier, str]:
    """Returns a network for the classes, and in words where its weights are from.

    Args:
      backbone: see `ModelConfig`.
      head: see `ModelConfig`.
      classes: of the training split.
      dtype: see `ModelConfig`.
      preprocessing: of its images.
      seed: of the initialization.
      init_from: see `initialize_from`.
    """
    model = create_model(
        backbone.name,
        head.name,
        num_classes=len(classes.names),
        backbone_kwargs=backbone.kwargs,
        head_kwargs=head.kwargs,
        dtype=None if dtype == "float32" else dtype,
        rngs=nnx.Rngs(seed),
    )
    initialized = "fresh"
    if init_from is not None:
        model, initialized = initialize_from(model, init_from)
    model.class_names, model.preprocessing = classes.names, preprocessing
    return for_classes(model, classes), initialized


def initialize_from(model: Classifier, path: str | Path) -> tuple[Classifier, str]:
    """Returns `model` with the backbone of a checkpoint, and its head too where that fits whole.

    Args:
      model: freshly initialized.
      path: of the checkpoint; see `load_model`.

    Returns:
      The network, and in words what it now holds.

    Raises:
      ValueError: for a checkpoint whose backbone is not the model's; all differences are listed.
    """
    graph, params, statistics = split_model(model)
    loaded = load_model(path)
    _, *source = split_model(loaded)
    given: dict[str, Array] = source[0] | source[1]
    wanted = params | statistics

    def differences(prefix: str) -> list[str]:
        paths = sorted(p for p in wanted.keys() | given.keys() if p.startswith(prefix))
        shape = {p: [getattr(a.get(p), "shape", "nothing") for a in (wanted, given)] for p in paths}
        return [f"{p}: expected {a}, got {b}" for p, (a, b) in shape.items() if a != b]

    if problems := differences("backbone."):
        listed = "\n  ".join(problems[:20])
        raise ValueError(
            f"model.init_from {path}: its backbone is not this {model.spec.backbone.name} "
            f"({len(problems)} differences)\n  {listed}"
        )
    prefixes = ("backbone.",) if differences("head.") else ("backbone.", "head.")
    params = {p: given[p] if p.startswith(prefixes) else a for p, a in params.items()}
    statistics = {p: given[p] if p.startswith(prefixes) else a for p, a in statistics.items()}
    what = "backbone; the head is fresh" if len(prefixes) == 1 else "backbone and head"
    initialized = merge_model(graph, params, statistics)
    initialized.naming = loaded.naming
    return initialized, f"{what}, from {path}"
