"""What all commands do alike."""

import os
import subprocess
import sys

CODE = """
from mljax.terminal.command import run_command
run_command(lambda: print("caf\\xe9 \\u732b"))
"""


def test_names_that_the_terminal_cannot_show_are_printed_escaped():
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    out = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, check=True)
    assert out.stdout.strip() == rb"caf\xe9 \u732b"
