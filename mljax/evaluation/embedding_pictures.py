"""Pictures of embeddings: points by label, and images beside their nearest neighbors."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from PIL import Image, ImageDraw, ImageFont

from mljax.evaluation.pictures import make_figure

# More classes have no colors that can be told apart.
_MAX_CLASSES = 18
_OTHERS = "0.8"
_CELL, _TEXT = 144, 13


def plot_by_label(
    points: Float[np.ndarray, "n 2"],
    shares: Float[np.ndarray, "2"],
    classes: Int[np.ndarray, " n"],
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Writes points in the color of their class.

    Args:
      points: along two axes.
      shares: of the variance, of each axis.
      classes: of each point, or -1 for none. The most frequent have colors, all others are grey.
      class_names: by number.
      title: of the picture.
      path: the ending tells the format.

    Raises:
      ImportError: without matplotlib.
    """
    figure = make_figure((8.5, 6.5))
    axes = figure.add_subplot()
    shown = _most_frequent(np.bincount(classes[classes >= 0], minlength=len(class_names)))
    grey = ~np.isin(classes, shown)
    size = _point_size(len(points))
    axes.scatter(*points[grey].T, s=size, c=_OTHERS, linewidths=0)
    colors = _colors(len(shown))
    # In any order, so that no class lies on all others.
    order = np.random.default_rng(0).permutation(np.flatnonzero(~grey))
    color_of = {c: color for c, color in zip(shown, colors, strict=True)}
    axes.scatter(*points[order].T, s=size, c=[color_of[c] for c in classes[order]], linewidths=0)
    for c in shown:
        label = f"{class_names[c]} ({np.count_nonzero(classes == c)})"
        axes.scatter([], [], s=40, color=[color_of[c]], label=label)
    if grey.any():
        axes.scatter([], [], s=40, color=_OTHERS, label=f"other ({np.count_nonzero(grey)})")
    _name_axes(axes, shares)
    axes.set_title(title, parse_math=False)
    legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.savefig(path, dpi=150)


def plot_each_label(
    points: Float[np.ndarray, "n 2"],
    shares: Float[np.ndarray, "2"],
    labels: Shaped[np.ndarray, "n k"],
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Writes all points once for each of the most frequent classes, with its own in color.

    So an image with several labels is in the picture of each.

    Args:
      points: along two axes.
      shares: of the variance, of each axis.
      labels: above 0 for those that are present.
      class_names: by number.
      title: of the picture.
      path: the ending tells the format.

    Raises:
      ImportError: without matplotlib.
    """
    shown = _most_frequent((labels > 0).sum(0)) or [0]
    columns = min(len(shown), 5)
    rows = math.ceil(len(shown) / columns)
    figure = make_figure((2.4 * columns + 0.4, 2.5 * rows + 0.6))
    size = _point_size(len(points)) / 2
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for panel, c, color in zip(panels.flat, shown, _colors(len(shown)), strict=False):
        own = labels[:, c] > 0
        panel.scatter(*points[~own].T, s=size, c=_OTHERS, linewidths=0)
        panel.scatter(*points[own].T, s=size, color=[color], linewidths=0)
        panel.set_title(f"{class_names[c]} ({own.sum()})", fontsize=9, parse_math=False)
        panel.set_xticks([])
        panel.set_yticks([])
    for panel in panels.flat[len(shown) :]:
        panel.set_axis_off()
    figure.suptitle(f"{title}; axes: {_percent(shares[0])} and {_percent(shares[1])} of variance")
    figure.savefig(path, dpi=150)


def contact_sheet(rows: Sequence[Sequence[tuple[Image.Image, Sequence[str]]]]) -> Image.Image:
    """Returns rows of images with lines of text below each; the first image of a row stands apart.

    Args:
      rows: of images, in RGB, and their lines.
    """
    lines = max(len(text) for row in rows for _, text in row)
    font: Any = ImageFont.load_default(size=_TEXT)
    line_height = math.ceil(1.3 * _TEXT)
    width, height = _CELL + 12, _CELL + lines * line_height + 16
    gap = 24
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (columns * width + gap, len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        for column, (image, text) in enumerate(row):
            left, top = column * width + (gap if column else 0) + 6, number * height + 6
            image = _fit(image)
            sheet.paste(image, (left + (_CELL - image.width) // 2, top + _CELL - image.height))
            for line, words in enumerate(text):
                at = (left, top + _CELL + 3 + line * line_height)
                draw.text(at, _cut(words, font), "black", font=font)
    bar = width + gap // 2
    draw.line((bar, 6, bar, sheet.height - 6), "grey")
    return sheet


def _fit(image: Image.Image) -> Image.Image:
    """Returns an image as large as fits; a small one without smoothing, as the network saw it."""
    scale = _CELL / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _cut(text: str, font: Any) -> str:  # noqa: ANN401
    """Returns the text, its middle left out where it is too long."""
    if font.getlength(text) <= _CELL:
        return text
    kept = len(text)
    while kept > 2 and font.getlength(text[: kept // 2] + "..." + text[-(kept // 2) :]) > _CELL:
        kept -= 1
    return text[: kept // 2] + "..." + text[-(kept // 2) :]


def _most_frequent(counts: Int[np.ndarray, " k"]) -> list[int]:
    """Returns up to 18 classes that are present, in their order."""
    order = np.argsort(-counts, kind="stable")[:_MAX_CLASSES]
    return sorted(order[counts[order] > 0].tolist())


def _colors(count: int) -> Float[np.ndarray, "c 4"]:
    """Returns colors of which none is grey, as the points of all other classes are."""
    import matplotlib

    if count <= 10:
        colors = np.array(matplotlib.colormaps["tab10"](np.arange(10)))
        colors[7] = [0, 0, 0, 1]
    else:
        colors = np.delete(matplotlib.colormaps["tab20"](np.arange(20)), [14, 15], axis=0)
    return colors[:count]


def _point_size(count: int) -> float:
    return float(np.clip(20_000 / count, 3, 40))


def _name_axes(axes: Any, shares: Float[np.ndarray, "2"]) -> None:  # noqa: ANN401
    axes.set_xlabel(f"first principal axis, {_percent(shares[0])} of variance")
    axes.set_ylabel(f"second principal axis, {_percent(shares[1])} of variance")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
