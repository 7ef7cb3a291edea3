"""Top-k of single labels, and nearest neighbors."""

import numpy as np
import pytest
from rich.console import Console

from mljax.data.records import Classes
from mljax.evaluators import EVALUATORS
from mljax.evaluators.single_label import NearestNeighbors, SingleLabel

CLASSES = Classes(names=tuple("abcdefg"))


def test_top_1_and_top_k_count_the_rank_of_the_label():
    logits = np.array([[9, 8, 7, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4, 3], [1, 1, 1, 1, 1, 1, 1]], float)
    labels = np.eye(7)[[0, 2, 3]]
    evaluator = EVALUATORS["single_label"](top_k=3)
    for rows in (slice(0, 1), slice(1, 3)):
        evaluator.update({"logits": logits[rows]}, {"labels": labels[rows]})
    assert evaluator.result(CLASSES) == pytest.approx({"top1": 100 / 3, "top3": 200 / 3})
    console = Console(record=True, width=80)
    evaluator.show(console)
    assert "top1 33.33, top3 66.67 on 3 images" in console.export_text()


def test_several_labels_are_not_for_it():
    with pytest.raises(ValueError, match="take multilabel"):
        SingleLabel().update({"logits": np.zeros((1, 7))}, {"labels": np.ones((1, 7))})
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        SingleLabel(top_k=0)


def test_the_nearest_other_image_shares_a_label_or_not():
    embeddings = np.array([[1, 0], [2, 0.1], [0, 3], [0.1, 1]])
    labels = np.eye(7)[[0, 0, 1, 2]]
    evaluator = NearestNeighbors(output="projections")
    assert evaluator.reads == ("projections",)
    evaluator.update({"projections": embeddings}, {"labels": labels})
    assert evaluator.result(CLASSES) == {"neighbor": 50.0}
