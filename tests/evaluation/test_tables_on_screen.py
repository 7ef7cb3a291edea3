"""How long tables are at a terminal, where the result comes last."""

import io

import numpy as np
import pytest
from rich.console import Console

from mljax.evaluators.multilabel import evaluate_scores, print_evaluation


def _printed(classes, *, terminal, images=9):
    rng = np.random.default_rng(0)
    labels = (rng.random((images, classes)) < 0.5).astype(np.float32)
    labels[0] = 1
    found = evaluate_scores(rng.random(labels.shape, np.float32), labels)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, no_color=True)
    print_evaluation(found, [f"class{c}." for c in range(classes)], console)
    return console.file.getvalue()


@pytest.mark.parametrize(("classes", "rows"), [(20, 20), (21, 20), (80, 20)])
def test_a_table_at_a_terminal_has_twenty_classes(classes, rows):
    shown = _printed(classes, terminal=True)
    assert sum(f"class{c}." in shown for c in range(classes)) == rows


def test_what_is_not_shown_is_counted_with_where_it_is():
    shown = _printed(80, terminal=True)
    assert "not shown: 60 classes" in shown
    assert "metrics.json" in shown
    assert "not shown: 1 class " in _printed(21, terminal=True)
    assert "not shown" not in _printed(20, terminal=True)


def test_a_file_has_all_of_eighty_classes():
    shown = _printed(80, terminal=False)
    assert all(f"class{c}." in shown for c in range(80))


@pytest.mark.parametrize("terminal", [True, False])
def test_map_comes_last(terminal):
    assert "mAP" in _printed(80, terminal=terminal).splitlines()[-1]


def test_one_image_is_one():
    assert _printed(3, terminal=False, images=1).endswith(" on 1 image\n")
