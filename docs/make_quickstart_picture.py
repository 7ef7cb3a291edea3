"""Draws docs/images/quickstart.png: what the trained quickstart says of digits it has never seen.

    python -m mljax.train --config quickstart --workdir runs/quickstart
    python docs/make_quickstart_picture.py --checkpoint runs/quickstart

The canvases are the first ones of the split `test`, which neither training nor the choice of the
best network has seen. `mljax.predict --output` labels them; the script puts them side by side.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from mljax import predict
from mljax.data.readers.digits import digits

_COUNT = 4
_COLUMNS = 4
_GAP = 12
_COLORS = 128


def main() -> None:
    """Writes the canvases, labels them, and joins the labeled ones."""
    parser = argparse.ArgumentParser(description="Draws the picture of the README.")
    parser.add_argument("--checkpoint", default="runs/quickstart", help="the quickstart's workdir")
    target = Path(__file__).parent / "images" / "quickstart.png"
    parser.add_argument("--output", type=Path, default=target, metavar="FILE.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        canvases, labeled = Path(folder) / "canvases", Path(folder) / "labeled"
        canvases.mkdir()
        for number, pixels in enumerate(digits("test").images[:_COUNT], 1):
            Image.fromarray(pixels).save(canvases / f"{number}.png")
        command = ["--checkpoint", arguments.checkpoint, str(canvases), "--output", str(labeled)]
        if predict.main(command):
            raise SystemExit("the prediction failed; its message is above")
        pictures = [Image.open(path).convert("RGB") for path in sorted(labeled.iterdir())]
    joined = _join(pictures).quantize(_COLORS, dither=Image.Dither.NONE)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    joined.save(arguments.output, optimize=True)
    print(f"written to {arguments.output}: {arguments.output.stat().st_size} bytes")


def _join(pictures: list[Image.Image]) -> Image.Image:
    """Returns the pictures in rows on white."""
    width = max(picture.width for picture in pictures) + _GAP
    height = max(picture.height for picture in pictures) + _GAP
    rows = -(-len(pictures) // _COLUMNS)
    joined = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, _COLUMNS)
        joined.paste(picture, (column * width + _GAP, row * height + _GAP))
    return joined


if __name__ == "__main__":
    main()
