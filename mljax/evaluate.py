"""Evaluates a checkpoint: `python -m mljax.evaluate --checkpoint FOLDER [--split S]`.

Prints and writes mAP, the AP of each class, and precision, recall and F1 at a threshold.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Int8, Shaped
from rich.console import Console
from rich.progress import track

from mljax.checkpoints.checkpoint import find_model, load_model, read_recipe
from mljax.config.schema import DataConfig, EvalConfig, load_config, override
from mljax.data import READERS
from mljax.data.pipeline import eval_batches
from mljax.data.records import Records
from mljax.data.sparse_labels import SparseLabels
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.devices.mesh import make_mesh, replicated
from mljax.evaluation.multilabel import Evaluation, evaluate_scores, metrics_json, print_evaluation
from mljax.evaluators.kernels import KernelStatistics, report_kernels, watch_kernels
from mljax.models.classifier import Classifier, split_model, with_classes
from mljax.training.check import check_data, check_threshold
from mljax.training.step import make_forward

__all__ = ["Evaluation", "collect_scores", "evaluate", "evaluate_scores", "make_apply"]

Batch = dict[str, np.ndarray]

# Bytes of scores, or of labels, that stay in memory; more of them become a memory map.
MAX_IN_MEMORY = 2**28


def make_apply(
    model: Classifier,
) -> Callable[[Float[np.ndarray, "b h w 3"]], Float[np.ndarray, "b k"]]:
    """Returns `apply(images)`: the logits, computed on all local devices.

    The images are split over the devices, so their number must be a multiple of the devices'.
    """
    mesh = make_mesh(jax.local_devices())
    _, params, stats = split_model(model)
    params, stats = jax.device_put((params, stats), replicated(mesh))
    forward = make_forward(model, mesh)
    return lambda images: forward(params, stats, images)


def whole_batch(rows: int) -> int:
    """Returns the least batch size that has `rows` rows and is a multiple of the devices."""
    devices = jax.local_device_count()
    return -(-rows // devices) * devices


def collect_scores(
    apply: Callable[[Float[np.ndarray, "b h w 3"]], Any],
    batches: Iterable[dict[str, np.ndarray]],
) -> tuple[
    Float[np.ndarray, "*v n k"],
    Int8[np.ndarray, "n k"],
    Bool[np.ndarray, "n k"] | None,
    list[int],
]:
    """Returns what the network says of every image, in the order of the records.

    With several hosts, each gives its own batches, equally many, and all get the whole result.

    Scores take four bytes each, labels and the mask one. An array larger than `MAX_IN_MEMORY` lies
    in a file without a name in the folder for temporary files (TMPDIR chooses another) and goes
    with it: 4.8 GB of scores and 1.2 GB of labels for 125,000 images and 9,605 classes. No array
    then takes more than twice `MAX_IN_MEMORY`, nor do its metrics; what memory is free, the system
    uses to keep parts of the file at hand.

    Args:
      apply: this host's images to their logits `[b, k]`, as a numpy or jax array; several
        networks at once give `[v, b, k]`.
      batches: of `mljax.data.pipeline.eval_batches`.

    Returns:
      Scores (the sigmoid of the logits, float32), labels, the `ignored` mask or None, and the
      record numbers of bad images that were skipped, which the arrays leave out.

    Raises:
      ValueError: if no batch has a valid image.
    """
    skipped: list[int] = []
    with contextlib.ExitStack() as files:
        table: dict[str, _Rows] = {}
        for batch in batches:
            logits = np.moveaxis(np.asarray(apply(batch["images"]), np.float32), -2, 0)
            rows = {"scores": sigmoid(logits), "labels": batch["labels"].astype(np.int8)}
            rows |= {key: batch[key] for key in ("ignored", "index", "valid") if key in batch}
            if jax.process_count() > 1:
                # The slices of one batch follow each other in the order of the hosts.
                rows = multihost_utils.process_allgather(rows, tiled=True)
            index, valid = rows.pop("index"), rows.pop("valid")
            skipped += index[~valid & (index >= 0)].tolist()
            for key, value in rows.items():
                table.setdefault(key, _Rows(files)).append(value[valid])
        if not table:
            raise ValueError("nothing to evaluate: there is no batch")
        arrays = {key: rows.array() for key, rows in table.items()}
    if not len(arrays["labels"]):
        raise ValueError(f"nothing to evaluate: all {len(skipped)} images were skipped as bad")
    scores = np.moveaxis(arrays["scores"], 0, -2)
    return scores, arrays["labels"], arrays.get("ignored"), skipped


class _Rows:
    """Rows of one array that come in parts: in memory, or in a file once they are many."""

    def __init__(self, files: contextlib.ExitStack) -> None:
        self._files = files
        self._file = None
        self._parts: list[np.ndarray] = []
        self._length = self._bytes = 0

    def append(self, part: Shaped[np.ndarray, "rows *rest"]) -> None:
        self._parts.append(part)
        self._length += len(part)
        self._bytes += part.nbytes
        if self._bytes > MAX_IN_MEMORY:
            if self._file is None:
                self._file = self._files.enter_context(tempfile.TemporaryFile())
            for waiting in self._parts:
                waiting.tofile(self._file)
            self._parts = [part[:0]]

    def array(self) -> Shaped[np.ndarray, "n *rest"]:
        """Returns all rows."""
        if self._file is None:
            return np.concatenate(self._parts)
        # The map outlives the closing of the file, which has no name any more.
        empty = self._parts[0]
        return np.memmap(self._file, empty.dtype, "r", shape=(self._length, *empty.shape[1:]))


def sigmoid(logits: Float[np.ndarray, "*b k"]) -> Float[np.ndarray, "*b k"]:
    """Returns the scores of float32 logits, in [0, 1]."""
    # exp of a large argument overflows to infinity; its reciprocal, 0, is the right limit.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


def evaluate(
    model: Classifier,
    data: DataConfig,
    *,
    split: str,
    threshold: float = 0.8,
    top_k: int = 3,
    kernels: KernelStatistics | None = None,
) -> tuple[Evaluation, tuple[str, ...], list[str]]:
    """Runs a network over a split, on all devices of all processes.

    Classes are matched by name where the network knows its names. If the split has other names,
    they are matched by position, with a warning. If it has word vectors, a zero-shot network scores
    its classes.

    Args:
      model: in eval mode.
      data: the reader, the preprocessing and what becomes of bad images.
      split: of the reader.
      threshold: a class is predicted where its score is above.
      top_k: how many predictions an image may have in `Evaluation.top`.
      kernels: of the same network; gets to see the split.

    Returns:
      The figures, the class names in their order, and the names of skipped bad images.

    Raises:
      ValueError: for data, a threshold or a limit that cannot be, or another number of classes.
    """
    check_threshold(threshold, top_k)
    check_data(data)
    records = READERS[data.reader.name](split, **data.reader.kwargs)
    if records.word_vectors is not None:
        model = with_classes(model, records.class_names, records.word_vectors)
    records, class_names = _in_order_of(model, records)
    # Each process has a whole number of rows for each of its devices.
    processes = jax.process_count()
    batch_size = whole_batch(-(-data.eval_batch_size // processes)) * processes
    batches = eval_batches(
        records,
        preprocessing=data.preprocessing,
        batch_size=batch_size,
        num_workers=data.num_workers,
        bad_images=data.bad_images,
        process_index=jax.process_index(),
        process_count=processes,
    )
    with batches:
        shown = _with_progress(batches, -(-len(records) // batch_size))
        if kernels is None:
            apply = make_apply(model)
        else:
            apply, shown = np.asarray, kernels.watch(shown)
        scores, labels, ignored, skipped = collect_scores(apply, shown)
    found = evaluate_scores(scores, labels, ignored=ignored, threshold=threshold, top_k=top_k)
    return found, class_names, [records.name(index) for index in skipped]


def _with_progress(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
    console = Console(stderr=True)
    hidden = not console.is_terminal
    yield from track(batches, "evaluating", total, console=console, disable=hidden, transient=True)


def _in_order_of(model: Classifier, records: Records) -> tuple[Records, tuple[str, ...]]:
    """Returns the records with the columns of their labels in the order of the logits."""
    if len(records.class_names) != model.spec.num_classes:
        raise ValueError(
            f"the network has {model.spec.num_classes} classes, the split has "
            f"{len(records.class_names)} ({', '.join(records.class_names[:5])}, ...): evaluate it "
            "on the data set it was made for"
        )
    names = model.class_names
    if names is None or names == records.class_names:
        return records, records.class_names
    if set(names) != set(records.class_names) or len(set(names)) < len(names):
        pairs = zip(names, records.class_names, strict=True)
        differing = [f"{a} / {b}" for a, b in pairs if a != b]
        warnings.warn(
            f"{len(differing)} classes of the network have another name in the split, such as "
            f"{differing[0]}; they are matched by position",
            stacklevel=3,
        )
        return records, names
    column_of = {name: column for column, name in enumerate(records.class_names)}
    columns = np.array([column_of[name] for name in names])
    labels = records.labels
    if isinstance(labels, SparseLabels):
        labels = labels.with_columns(columns)
    else:
        labels = np.stack([np.asarray(row)[columns] for row in labels])
    ignored = None if records.ignored is None else records.ignored[:, columns]
    records = dataclasses.replace(records, labels=labels, ignored=ignored, class_names=names)
    return records, names


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    try:
        _run(arguments, Console())
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(arguments: argparse.Namespace, console: Console) -> None:
    checkpoint = find_model(arguments.checkpoint)
    model = load_model(checkpoint)
    kernels = watch_kernels(model, arguments.label_correlation)
    data, defaults = _resolve(checkpoint, model, arguments)
    split = arguments.split or data.eval_split
    threshold = defaults.threshold if arguments.threshold is None else arguments.threshold
    found, class_names, skipped = evaluate(
        model, data, split=split, threshold=threshold, top_k=arguments.top_k, kernels=kernels
    )
    console.print(f"{checkpoint}: {data.reader.name}, split {split}", highlight=False)
    print_evaluation(found, class_names, console)
    for name in skipped:
        console.print(f"skipped, cannot be read: {name}", highlight=False, markup=False)
    output = arguments.output or _default_output(arguments.checkpoint, checkpoint)
    figures = {"checkpoint": str(checkpoint), "reader": data.reader.name, "split": split}
    figures |= metrics_json(found, class_names) | {"skipped": skipped}
    if kernels is not None:
        picture = arguments.label_correlation
        figures |= report_kernels(kernels, class_names, console, picture=picture)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n")
    console.print(f"written to {output}", highlight=False, markup=False)


def _resolve(
    checkpoint: Path, model: Classifier, arguments: argparse.Namespace
) -> tuple[DataConfig, EvalConfig]:
    """Returns the data and the defaults of the recipe, with the command's changes.

    The network's own preprocessing comes before the recipe's, and the command's before both.
    """
    recipe = read_recipe(checkpoint)
    if arguments.config is not None:
        recipe = load_config(arguments.config)
    if recipe is None:
        raise ValueError(
            f"{checkpoint} holds no recipe that would say where the images are; name one by "
            "--config FILE, such as those in configs/"
        )
    if model.preprocessing is not None:
        data = dataclasses.replace(recipe.data, preprocessing=model.preprocessing)
        recipe = dataclasses.replace(recipe, data=data)
    recipe = override(recipe, [f"data.{assignment}" for assignment in arguments.data])
    return recipe.data, recipe.eval


def _default_output(given: Path, checkpoint: Path) -> Path:
    """Returns a file in the workdir, or beside the checkpoint, whose own files are sealed."""
    if given.absolute() != checkpoint:
        return given / "metrics.json"
    return checkpoint.with_name(f"{checkpoint.name}.metrics.json")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.evaluate",
        description="Evaluates a checkpoint on a split of a data set.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run's workdir")
    add("--split", help="of the data set; default: the recipe's data.eval_split")
    add("--config", metavar="FILE", help="a recipe to use in place of the checkpoint's")
    add(
        "--data",
        action="extend",
        nargs="+",
        default=[],
        metavar="PATH=VALUE",
        help="change the recipe's data, as reader.kwargs.root=/my/coco or eval_batch_size=8",
    )
    add("--threshold", type=float, help="predicted above; default: the recipe's eval.threshold")
    add("--top-k", type=int, default=3, help="predictions per image in the second row (3)")
    text = "KMCL: write a picture of how much the kernels of every two classes overlap"
    add("--label-correlation", type=Path, metavar="FILE.png", help=text)
    add(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="default: metrics.json in the workdir, or NAME.metrics.json beside a checkpoint",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
