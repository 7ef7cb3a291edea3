"""Weights of a checkpoint as the start of a training."""

from collections.abc import Iterable
from pathlib import Path

from flax import nnx
from jaxtyping import Array

from mljax.checkpoints.checkpoint import load_model
from mljax.config.part import Part
from mljax.config.schema import Preprocessing
from mljax.data.records import Classes
from mljax.models.arrays import Arrays, merge_model, split_model
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
    """Returns `model` with the backbone of a checkpoint, and with its head where that is a part.

    A head that has more than the checkpoint's, such as a projection, keeps what it has more. One
    that lacks a variable of the checkpoint's, or has another shape of it, stays fresh.

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

    def differences(paths: Iterable[str]) -> list[str]:
        shape = {p: [getattr(a.get(p), "shape", "nothing") for a in (wanted, given)] for p in paths}
        return [f"{p}: expected {a}, got {b}" for p, (a, b) in shape.items() if a != b]

    known = sorted(wanted.keys() | given.keys())
    if problems := differences(p for p in known if p.startswith("backbone.")):
        listed = "\n  ".join(problems[:20])
        raise ValueError(
            f"model.init_from {path}: its backbone is not this {model.spec.backbone.name} "
            f"({len(problems)} differences)\n  {listed}"
        )
    if differences(p for p in given if p.startswith("head.")):
        given = {p: a for p, a in given.items() if p.startswith("backbone.")}
    params, statistics = ({**a, **_only(given, a)} for a in (params, statistics))
    initialized = merge_model(graph, params, statistics)
    initialized.naming = loaded.naming
    fresh = dict.fromkeys(p.split(".")[1] for p in wanted if p not in given)
    return initialized, f"{_describe(given, list(fresh))}, from {path}"


def _only(arrays: Arrays, paths: Iterable[str]) -> Arrays:
    return {p: arrays[p] for p in paths if p in arrays}


def _describe(given: Arrays, fresh: list[str]) -> str:
    if not any(p.startswith("head.") for p in given):
        return "backbone; the head is fresh"
    return "backbone and head" + (f", whose {' and '.join(fresh)} is fresh" if fresh else "")
