"""A mean with the neighbors that equals Pillow's to the bit, in about half of its time."""

import numpy as np
from PIL import Image

# Values at a time, so that all of the intermediate ones stay in a core's cache.
_BLOCK = 2**15


def smooth(image: Image.Image) -> Image.Image:
    """Returns the image of `image.filter(ImageFilter.SMOOTH)`.

    A pixel counts five times, each of its eight neighbors once; those at the edges stay. Pillow
    sums the thirteenths in floating point and rounds. Here whole numbers are summed: a thirteenth
    is never near a half.

    Args:
      image: an RGB image.
    """
    if min(image.size) < 3:
        return image
    before = np.asarray(image)
    result = before.copy()
    line = before[0].size
    rows = max(1, _BLOCK // line)
    for first in range(1, len(before) - 1, rows):
        last = min(first + rows, len(before) - 1)
        # Rows follow each other in one line, over whose ends sums go, too: those are at the edges.
        values = before[first - 1 : last + 1].reshape(-1).astype(np.uint16)
        columns = values[: -2 * line] + values[line:-line]
        columns += values[2 * line :]
        sums = columns[:-6] + columns[3:-3]
        sums += columns[6:]
        sums += 4 * values[line + 3 : -line - 3]
        sums += 6
        sums //= 13
        result[first:last].reshape(-1)[3:-3] = sums
    result[:, [0, -1]] = before[:, [0, -1]]
    return Image.fromarray(result)
