"""Runs networks over the batches of a split and hands their outputs to evaluators.

An evaluator has `reads`, the names of the head's outputs that it wants; `update(outputs, batch)`,
called with the valid rows of each whole (global) batch, as numpy arrays; `result(classes)`, which
returns its figures as JSON's dicts, lists and numbers; `show(console)`, which prints them; and
`pictures(folder)`, which writes pictures and returns their paths.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from mljax.config.schema import MAX_PIXELS, MatmulPrecision, Preprocessing
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records
from mljax.devices.ahead import begin_ahead
from mljax.devices.compilation_cache import compiling
from mljax.evaluation.decisions import decision_of
from mljax.models.classifier import Classifier, for_classes
from mljax.models.inference import (
    Apply,
    MakeApply,
    fetch,
    make_apply,
    outputs_read,
    whole_batch,
)
from mljax.terminal.grammar import counted
from mljax.terminal.progress import make_progress

Batch = dict[str, np.ndarray]


def run_evaluators(
    networks: Mapping[str, Apply],
    evaluators: Mapping[str, Sequence[Any]],
    batches: Iterable[Batch],
) -> list[int]:
    """Hands the outputs of each network for every image to its evaluators, in order.

    With several processes, each gives its own batches, equally many, and the evaluators of all of
    them see every image. While the evaluators look at one batch, the devices compute the next.

    Args:
      networks: name to a function of this process's images to outputs of the head, of
        `make_forward`; or to numpy arrays.
      evaluators: those of each network.
      batches: of `mljax.data.pipeline.eval_batches`.

    Returns:
      The record numbers of bad images that were skipped, which no evaluator sees.

    Raises:
      ValueError: if no batch has a valid image.
    """
    skipped: list[int] = []
    seen = 0

    def apply_all(batch: Batch) -> dict[str, Any]:
        return {name: apply(batch["images"]) for name, apply in networks.items()}

    for batch, outputs in begin_ahead(batches, apply_all, 1):
        rows: Any = {
            "outputs": {name: fetch(found) for name, found in outputs.items()},
            "batch": {key: value for key, value in batch.items() if key != "images"},
        }
        if jax.process_count() > 1:
            # The slices of one batch follow each other in the order of the processes.
            rows = multihost_utils.process_allgather(rows, tiled=True)
        index, valid = rows["batch"]["index"], rows["batch"]["valid"]
        skipped += index[~valid & (index >= 0)].tolist()
        seen += np.count_nonzero(valid)
        if not valid.any():
            continue
        rows = jax.tree.map(lambda array, valid=valid: array[valid], rows)
        for name, those in evaluators.items():
            for evaluator in those:
                evaluator.update(rows["outputs"][name], rows["batch"])
    if not seen:
        were = "was" if len(skipped) == 1 else "were"
        raise ValueError(
            f"nothing to evaluate: {counted(len(skipped), 'image')} {were} skipped as bad"
        )
    return skipped


def merge_figures(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the figures of several evaluators as one dict.

    Raises:
      ValueError: for a figure that two evaluators give.
    """
    figures: dict[str, Any] = {}
    for result in results:
        if twice := figures.keys() & result.keys():
            raise ValueError(f"two evaluators give the figure {', '.join(sorted(twice))}")
        figures |= result
    return figures


def evaluate_model(
    model: Classifier,
    records: Records,
    *,
    evaluators: Sequence[Any],
    preprocessing: Preprocessing | None = None,
    threshold: float | None = None,
    batch_size: int = 64,
    num_workers: int | None = 0,
    bad_images: str = "fail",
    max_pixels: int = MAX_PIXELS,
    cache: str | None = None,
    match: Literal["name", "position"] = "name",
    make: MakeApply = make_apply,
    matmul_precision: MatmulPrecision = "default",
) -> tuple[dict[str, Any], list[str]]:
    """Runs a network over a split, on all devices of all processes.

    Classes are matched by name; see `in_order_of`. If they have vectors, a network that can read
    them scores these classes; see `for_classes`.

    Args:
      model: in eval mode.
      records: of a reader.
      evaluators: see the top of this file; afterwards they can `show` what they found.
      preprocessing: None takes the model's.
      threshold: a class is predicted where its score is above, in [0, 1]; None takes the network's
        calibrated thresholds, or 0.8 if it has none.
      batch_size: images that the network reads at once.
      num_workers: processes that decode; 0 uses threads; see `DataConfig`.
      bad_images: `fail` raises with the file's name, `skip` leaves it out.
      max_pixels: width times height of the largest image that is decoded; a larger one is bad.
      cache: a folder for resized images; see `DataConfig`.
      match: see `in_order_of`.
      make: what runs the network, of `mljax.formats.RUNTIMES`.
      matmul_precision: see `TrainConfig`.

    Returns:
      The figures, and the names of skipped bad images.

    Raises:
      ValueError: for a threshold out of range, classes that are not the network's, or a network
        without preprocessing where none is given.
    """
    decision_of(model, threshold)
    if records.class_vectors is not None:
        model = for_classes(model, records.classes)
    records = in_order_of(model, records, match)
    skipped = run_model(
        model,
        records,
        evaluators=evaluators,
        preprocessing=preprocessing,
        batch_size=batch_size,
        num_workers=num_workers,
        bad_images=bad_images,
        max_pixels=max_pixels,
        cache=cache,
        make=make,
        matmul_precision=matmul_precision,
    )
    decision = decision_of(model, threshold)
    classes = dataclasses.replace(
        records.classes, threshold=decision.score, logit_threshold=decision.logit
    )
    figures = merge_figures(evaluator.result(classes) for evaluator in evaluators)
    return figures, [records.name(index) for index in skipped]


def run_model(
    model: Classifier,
    records: Records,
    *,
    evaluators: Sequence[Any],
    preprocessing: Preprocessing | None = None,
    batch_size: int = 64,
    num_workers: int | None = 0,
    bad_images: str = "fail",
    max_pixels: int = MAX_PIXELS,
    cache: str | None = None,
    make: MakeApply = make_apply,
    matmul_precision: MatmulPrecision = "default",
) -> list[int]:
    """Hands the outputs of a network for a whole split to evaluators; shows a progress bar.

    The arguments are those of `evaluate_model`; classes are not looked at.

    Returns:
      The record numbers of skipped bad images.

    Raises:
      ValueError: for a network without preprocessing where none is given.
    """
    preprocessing = preprocessing or model.preprocessing
    if preprocessing is None:
        raise ValueError("the model does not say how its images are prepared: give preprocessing")
    # Each process has a whole number of rows for each of its devices.
    processes = jax.process_count()
    batch_size = whole_batch(-(-batch_size // processes)) * processes
    batches = eval_batches(
        records,
        preprocessing=preprocessing,
        batch_size=batch_size,
        num_workers=num_workers,
        bad_images=bad_images,
        max_pixels=max_pixels,
        cache=cache,
        process_index=jax.process_index(),
        process_count=processes,
    )
    apply = make(
        model,
        outputs_read(evaluators),
        preprocessing=preprocessing,
        matmul_precision=matmul_precision,
    )
    spec, (height, width) = model.spec, preprocessing.height_width
    program = f"{spec.backbone.name} + {spec.head.name}, {batch_size} x {height} x {width}"
    with batches:
        shown = _with_progress(batches, -(-len(records) // batch_size), program)
        return run_evaluators({"network": apply}, {"network": evaluators}, shown)


def _with_progress(batches: Iterable[Batch], total: int, program: str) -> Iterator[Batch]:
    with make_progress(Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluating", total=total, status="")
        # The first batch is evaluated, and the network compiled, before the second is asked for.
        with contextlib.ExitStack() as first:
            first.enter_context(compiling(bar, task, program, then="evaluating"))
            for batch in batches:
                yield batch
                first.close()
                bar.advance(task)


def in_order_of(
    model: Classifier, records: Records, match: Literal["name", "position"] = "name"
) -> Records:
    """Returns the records with the columns of their labels in the order of the logits.

    Args:
      model: its `class_names` tell the order.
      records: of the split.
      match: `name` takes the columns by name; only if the network has no names, or none in common
        with the split, by position, the latter with a warning. `position` insists on that.

    Raises:
      ValueError: for another number of classes, or names of which only some are in common.
    """
    if len(records.class_names) != model.spec.num_classes:
        raise ValueError(
            f"the network has {model.spec.num_classes} classes, the split has "
            f"{len(records.class_names)} ({', '.join(records.class_names[:5])}, ...): evaluate it "
            "on the data set it was made for"
        )
    names = model.class_names
    if names is None or names == records.class_names:
        return records
    common = set(names) & set(records.class_names)
    if match == "position" or not common:
        pairs = zip(names, records.class_names, strict=True)
        differing = [f"{a} / {b}" for a, b in pairs if a != b]
        warnings.warn(
            f"{len(differing)} classes of the network have another name in the split, such as "
            f"{differing[0]}; they are matched by position",
            stacklevel=3,
        )
        return dataclasses.replace(records, class_names=names)
    try:
        return records.in_class_order(names, "the network")
    except ValueError as error:
        raise ValueError(
            f"{error}. Rename them on one side, or match all by their position (--match position)"
        ) from error
