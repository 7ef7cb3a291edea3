"""What all commands do alike."""

import os
import subprocess
import sys
import warnings

from PIL import Image

from mljax.data.images import load_image
from mljax.terminal.command import run_command

CODE = """
from mljax.terminal.command import run_command
run_command(lambda: print("caf\\xe9 \\u732b"))
"""


def test_names_that_the_terminal_cannot_show_are_printed_escaped():
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    out = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, check=True)
    assert out.stdout.strip() == rb"caf\xe9 \u732b"


def test_too_many_pixels_are_one_line_of_ours(tmp_path, capsys, monkeypatch):
    Image.new("1", (30, 10)).save(tmp_path / "a.png")
    # Pillow warns above its limit, up to twice of it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    before = warnings.filters[:]
    assert run_command(lambda: load_image(tmp_path / "a.png", max_pixels=100) and None) == 1
    assert warnings.filters == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "300 pixels exceed" not in error and "30 x 10 pixels exceed the limit of 100" in error
