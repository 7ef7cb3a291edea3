"""Pictures: figures of matplotlib, and photos with their labels."""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont


def make_figure(size: tuple[float, float]) -> Any:  # noqa: ANN401
    """Returns an empty figure of matplotlib; the size is in inches.

    Raises:
      ImportError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a picture needs matplotlib: pip install 'mljax[plot]'") from error
    return Figure(figsize=size, layout="constrained")


def annotate(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """Returns a copy of an RGB image with lines of text on a white strip below it.

    A small image is enlarged, so that its content is recognizable beside the text.
    """
    # Limited for the sake of long, thin images.
    scale = max(1, min(math.ceil(256 / min(image.size)), 1024 // max(image.size)))
    # Without smoothing: the pixels that the network saw stay visible.
    size = (image.width * scale, image.height * scale)
    image = image.resize(size, Image.Resampling.NEAREST)
    text_size = max(14, min(image.size) // 24)
    font: Any = ImageFont.load_default(size=text_size)
    rows = _flow(lines, font, image.width - text_size)
    width = max(image.width, *(math.ceil(font.getlength(row)) + text_size for row in rows))
    row_height, margin = math.ceil(1.4 * text_size), text_size // 2
    canvas = Image.new("RGB", (width, image.height + len(rows) * row_height + 2 * margin), "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        draw.text((margin, image.height + margin + number * row_height), row, "black", font=font)
    return canvas


def _flow(lines: Sequence[str], font: Any, width: int) -> list[str]:  # noqa: ANN401
    """Returns rows of as many lines side by side as fit the width in pixels."""
    rows: list[str] = []
    for line in lines:
        joined = f"{rows[-1]}     {line}" if rows else line
        if rows and font.getlength(joined) <= width:
            rows[-1] = joined
        else:
            rows.append(line)
    return rows
