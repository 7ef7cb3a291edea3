"""Shows what a network makes of images: `python -m mljax.embed --checkpoint FOLDER`.

Writes a folder with

    embeddings.npz        `embeddings` float32 `[n, d]`, `names` and `index` of the images, `labels`
                          `[n, k]` (1, 0, -1), `classes`; of a head with a vector for each label,
                          `label_embeddings` `[m, e]` of the present ones, and `label_pairs`
                          `[m, 2]`: row and class
    embeddings.png        the images along their first two principal axes, by label
    label_embeddings.png  the vectors of the present labels, likewise
    neighbors.png         the nearest images of those that `--neighbors` names

A vector is the mean of the backbone's map over space, or the output of the head that `--layer`
names. Lengths do not matter for pictures and neighbors: similarity is the cosine. Images with
several labels are drawn once for each of up to 18 classes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

import mljax.data  # noqa: F401
from mljax.checkpoints.checkpoint import find_model, load_model
from mljax.config.load import unread_fields
from mljax.config.part import resolved, use_plugins
from mljax.config.schema import DataConfig, MatmulPrecision
from mljax.data.images import load_image
from mljax.data.records import Records
from mljax.devices.compilation_cache import use_compilation_cache
from mljax.evaluation.embedding_pictures import contact_sheet, plot_by_label, plot_each_label
from mljax.evaluation.embeddings import POOLED, Embeddings, embed, nearest, principal_axes
from mljax.evaluation.image_files import show_path
from mljax.evaluation.pictures import make_figure
from mljax.evaluation.stored_config import read_data_config
from mljax.models.classifier import Classifier
from mljax.terminal.command import (
    add_data_option,
    add_plugin_option,
    add_precision_option,
    add_set_option,
    run_command,
)
from mljax.terminal.grammar import counted


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = _parse(argv)
    return run_command(lambda: _run(arguments, Console()))


def _run(arguments: argparse.Namespace, console: Console) -> None:
    use_plugins(arguments.plugin)
    # Without matplotlib this fails here, not after the work.
    make_figure((1.0, 1.0))
    if arguments.count < 1:
        raise ValueError(f"--count must be at least 1, got {arguments.count}")
    checkpoint = find_model(arguments.checkpoint)
    model = load_model(checkpoint)
    changes = [*arguments.set, *(f"data.{assignment}" for assignment in arguments.data)]
    data, evaluation = read_data_config(checkpoint, model, arguments.config, changes)
    for unread in unread_fields(arguments.set, ("data", "eval.matmul_precision")):
        console.print(
            f"--set {unread} changes nothing here: embed does not read it",
            highlight=False,
            markup=False,
        )
    split = arguments.split or data.eval_split
    records = resolved(data.reader, "reader")(split)
    folder = arguments.output or _default_output(arguments.checkpoint, checkpoint)
    if folder.is_file():
        raise ValueError(f"--output {folder}: is a file, expected a folder")
    queries = [_query(text, records, data.max_pixels) for text in arguments.neighbors]
    precision = arguments.matmul_precision or evaluation.matmul_precision
    found, skipped = _embed(model, records, data, arguments.layer, precision)
    asked = _rows_of(model, queries, found, data, precision)
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write_arrays(found, folder), *_draw(found, folder)]
    if asked:
        written.append(_draw_neighbors(asked, found, arguments.count, data.max_pixels, folder))
    shape = " x ".join(map(str, found.vectors.shape))
    console.print(f"{checkpoint}: {data.reader.name}, split {split}", highlight=False)
    console.print(f"{counted(len(found.vectors), 'image')}, {found.layer}: {shape}")
    if found.label_layer is not None:
        shape = " x ".join(map(str, found.label_vectors.shape))
        console.print(f"{counted(len(found.pairs), 'label')}, {found.label_layer}: {shape}")
    for name in skipped:
        console.print(f"skipped, cannot be read: {name}", highlight=False, markup=False)
    for path in written:
        console.print(f"written to {path}", highlight=False, markup=False)


def _embed(
    model: Classifier, records: Records, data: DataConfig, layer: str, precision: MatmulPrecision
) -> tuple[Embeddings, list[str]]:
    return embed(
        model,
        records,
        layer=layer,
        preprocessing=data.preprocessing,
        batch_size=data.eval_batch_size,
        num_workers=data.num_workers,
        bad_images=data.bad_images,
        max_pixels=data.max_pixels,
        cache=data.cache,
        matmul_precision=precision,
    )


def _query(text: str, records: Records, max_pixels: int) -> str | int:
    """Returns the path of an image to look for, or its number in the split.

    Raises:
      ValueError: for what is neither, or cannot be read.
    """
    if Path(text).exists() or not text.isdecimal():
        load_image(text, max_pixels=max_pixels)
        return text
    if int(text) >= len(records):
        raise ValueError(
            f"--neighbors {text}: no such file, and the split has images 0 to {len(records) - 1}"
        )
    return int(text)


def _rows_of(
    model: Classifier,
    queries: Sequence[str | int],
    found: Embeddings,
    data: DataConfig,
    precision: MatmulPrecision,
) -> list[tuple[str | int, np.ndarray]]:
    """Returns each image to look for with its vector."""
    paths = [query for query in queries if isinstance(query, str)]
    vectors: dict[str | int, np.ndarray] = dict(
        zip(found.index.tolist(), found.vectors, strict=True)
    )
    if paths:
        names = found.records.class_names
        unknown = np.broadcast_to(np.int8(-1), (len(paths), len(names)))
        others = Records(images=paths, labels=unknown, class_names=names)
        embedded, _ = _embed(model, others, data, found.layer, precision)
        vectors |= dict(zip(paths, embedded.vectors, strict=True))
    if missing := [query for query in queries if query not in vectors]:
        raise ValueError(f"--neighbors {missing[0]}: this image of the split was skipped as bad")
    return [(query, vectors[query]) for query in queries]


def _write_arrays(found: Embeddings, folder: Path) -> Path:
    path = folder / "embeddings.npz"
    arrays = {
        "embeddings": found.vectors,
        "names": np.array([show_path(name) for name in found.names]),
        "index": found.index,
        "labels": found.labels,
        "classes": np.array(found.records.class_names),
    }
    if found.label_layer is not None:
        arrays |= {"label_embeddings": found.label_vectors, "label_pairs": found.pairs}
    np.savez(path, allow_pickle=False, **arrays)
    return path


def _draw(found: Embeddings, folder: Path) -> list[Path]:
    names, present = found.records.class_names, found.labels > 0
    points, shares = principal_axes(found.vectors)
    written = [folder / "embeddings.png"]
    title = f"{counted(len(points), 'image')} by {found.layer}"
    if present.sum(1).max() > 1:
        plot_each_label(points, shares, found.labels, names, title, written[0])
    else:
        classes = np.where(present.any(1), present.argmax(1), -1)
        plot_by_label(points, shares, classes, names, title, written[0])
    if found.label_layer is not None and len(found.pairs):
        written.append(folder / "label_embeddings.png")
        points, shares = principal_axes(found.label_vectors)
        title = f"{counted(len(points), 'present label')} by {found.label_layer}"
        plot_by_label(points, shares, found.pairs[:, 1], names, title, written[1])
    return written


def _draw_neighbors(
    asked: Sequence[tuple[str | int, np.ndarray]],
    found: Embeddings,
    count: int,
    max_pixels: int,
    folder: Path,
) -> Path:
    """Writes a row for each image: itself, then its nearest ones, without itself."""
    records, names = found.records, found.names

    def cell(number: int, row: int, words: str) -> tuple[Image.Image, list[str]]:
        labels = [records.class_names[c] for c in np.flatnonzero(found.labels[row] > 0)]
        caption = f"{words} {Path(names[row]).name}".strip()
        return _picture(records.images[number], max_pixels), [caption, ", ".join(labels)]

    rows = []
    for query, vector in asked:
        if isinstance(query, int):
            first = cell(query, found.index.tolist().index(query), "")
        else:
            first = _picture(query, max_pixels), [Path(query).name]
        # One more: the image itself may be among them.
        order, cosines = nearest(found.vectors, vector, count + 1)
        others = [
            cell(int(found.index[row]), row, f"{cosine:.3f}")
            for row, cosine in zip(order.tolist(), cosines.tolist(), strict=True)
            if found.index[row] != query and not _same_file(names[row], query)
        ]
        rows.append([first, *others[:count]])
    path = folder / "neighbors.png"
    contact_sheet(rows).save(path)
    return path


def _same_file(name: str, query: str | int) -> bool:
    return isinstance(query, str) and Path(name).resolve() == Path(query).resolve()


def _picture(source: str | bytes | np.ndarray, max_pixels: int) -> Image.Image:
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    return load_image(source, max_pixels=max_pixels)


def _default_output(given: Path, checkpoint: Path) -> Path:
    """Returns a folder in the workdir, or beside the checkpoint, whose own files are sealed."""
    if given.absolute() != checkpoint:
        return given / "embeddings"
    return checkpoint.with_name(f"{checkpoint.name}.embeddings")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mljax.embed",
        description="Writes the vectors that a network makes of the images of a data set, and "
        "pictures of them.",
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a checkpoint folder, or a run's workdir")
    add("--split", help="of the data set; default: the config's data.eval_split")
    add("--config", metavar="FILE", help="a config to use in place of the checkpoint's")
    add_data_option(parser)
    add_set_option(parser)
    text = "an output of the head, as projections; default: the mean of the backbone's map"
    add("--layer", default=POOLED, metavar="NAME", help=text)
    add(
        "--neighbors",
        action="extend",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="draw the nearest images of the split: of a file, or of an image of the split by its "
        "number",
    )
    add("--count", type=int, default=8, metavar="N", help="of neighbors (8)")
    text = "default: embeddings in the workdir, or NAME.embeddings beside a checkpoint"
    add("--output", type=Path, metavar="FOLDER", help=text)
    add_precision_option(parser)
    add_plugin_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
