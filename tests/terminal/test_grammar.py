"""Words that depend on numbers, and warnings in a line."""

import warnings

import pytest

from mljax.terminal.command import run_command
from mljax.terminal.grammar import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "image", "2 images"),
        (1, "class", "1 class"),
        (3, "process", "3 processes"),
    ],
)
def test_a_noun_follows_its_number(number, noun, text):
    assert counted(number, noun) == text


def test_a_warning_of_a_command_is_one_line_without_code():
    def format_one(category):
        return warnings.formatwarning("all is well", category, "/a/file.py", 7)

    shown = []
    before = format_one(UserWarning)
    assert run_command(lambda: shown.append(format_one(UserWarning))) == 0
    assert shown == ["warning: all is well\n"]
    assert run_command(lambda: shown.append(format_one(DeprecationWarning))) == 0
    assert "file.py:7: DeprecationWarning" in shown[1]
    assert format_one(UserWarning) == before
