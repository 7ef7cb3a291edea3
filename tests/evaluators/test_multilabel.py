"""The figures of a split: those of the metrics, printed, as JSON and as a picture."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mljax.data.records import Classes
from mljax.evaluation import scores as scores_module
from mljax.evaluation.scores import sigmoid
from mljax.evaluators.multilabel import (
    Multilabel,
    draw_average_precision,
    evaluate_scores,
    metrics_json,
    print_evaluation,
)
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import average_precision, partial_average_precision

NAMES = ("a", "b", "c", "d")


def _scores_and_labels(n=20, k=4):
    rng = np.random.default_rng(0)
    scores = rng.random((n, k)).astype(np.float32)
    labels = rng.integers(0, 2, (n, k)).astype(np.float32)
    labels[0], labels[1] = 0, 1
    return scores, labels


def test_evaluation_holds_the_metrics_of_complete_labels():
    scores, labels = _scores_and_labels()
    ignored = scores > 0.95
    found = evaluate_scores(scores, labels, ignored=ignored, threshold=0.5, top_k=2)
    ap = average_precision(scores, labels, ignored=ignored)
    assert not found.partial
    np.testing.assert_array_equal(found.average_precision, ap)
    assert found.mean_average_precision == pytest.approx(100 * ap.mean())
    options = {"ignored": ignored, "threshold": 0.5}
    assert found.overall.OF1 == precision_recall_f1(scores, labels, **options).OF1
    assert found.top.CF1 == precision_recall_f1(scores, labels, top_k=2, **options).CF1
    assert found.top.OR < found.overall.OR


def test_evaluation_of_partial_labels_counts_annotated_entries():
    scores, labels = _scores_and_labels()
    labels[5:, 0] = -1
    labels[:, 1] = -1
    found = evaluate_scores(scores, labels, threshold=0.5)
    assert found.partial
    ap = partial_average_precision(scores, labels)
    np.testing.assert_array_equal(found.average_precision, ap)
    assert np.isnan(ap).tolist() == [False, True, False, False]
    assert found.mean_average_precision == pytest.approx(100 * np.nanmean(ap))
    expected = precision_recall_f1(scores, labels, ignored=labels < 0, threshold=0.5)
    assert found.overall.OF1 == expected.OF1


def test_evaluation_that_partial_labels_leave_undefined_is_nan():
    scores, labels = _scores_and_labels()
    assert np.isnan(evaluate_scores(scores, np.where(labels > 0, 1, -1)).mean_average_precision)


def test_each_class_may_have_its_own_threshold():
    scores, labels = _scores_and_labels()
    thresholds = np.array([0.2, 0.4, 0.6, 0.8])
    found = evaluate_scores(scores, labels, threshold=thresholds)
    expected = precision_recall_f1(scores, labels, threshold=thresholds)
    np.testing.assert_array_equal(found.overall.f1, expected.f1)
    assert metrics_json(found, NAMES)["decision"]["threshold"] == thresholds.tolist()
    assert "score > each class's threshold" in _printed(found, NAMES)


def _printed(evaluation, names):
    console = Console(width=120)
    with console.capture() as capture:
        print_evaluation(evaluation, names, console)
    return capture.get()


def test_what_is_printed_says_what_partial_labels_leave_out():
    scores, labels = _scores_and_labels()
    labels[:, 1] = -1
    found = evaluate_scores(scores, labels)
    shown = _printed(found, NAMES)
    assert "75.0% of the entries are annotated" in shown
    assert "undefined for 1 class," in shown
    assert metrics_json(found, NAMES)["classes"][1]["AP"] is None


def test_what_is_printed_says_that_classes_without_positive_count():
    scores, labels = _scores_and_labels()
    labels[:, 2] = 0
    assert "1 class has no positive" in _printed(evaluate_scores(scores, labels), NAMES)


def test_of_many_classes_the_highest_and_the_lowest_are_printed():
    scores, labels = _scores_and_labels(k=130)
    found = evaluate_scores(scores, labels)
    names = [f"[class{c}]" for c in range(130)]
    shown = _printed(found, names)
    assert "30 classes between" in shown
    order = np.argsort(found.average_precision)
    assert names[order[0]] in shown
    assert names[order[-1]] in shown
    assert names[order[65]] not in shown


def _evaluator(logits, labels, *, ignored=None, size=8, **arguments):
    """Returns the evaluator after batches of `size` images."""
    evaluator = Multilabel(**arguments)
    for first in range(0, len(logits), size):
        rows = slice(first, first + size)
        batch = {"labels": labels[rows]}
        if ignored is not None:
            batch["ignored"] = ignored[rows]
        evaluator.update({"logits": logits[rows]}, batch)
    return evaluator


def _logits_and_labels():
    scores, labels = _scores_and_labels()
    return np.log(scores / (1 - scores)), labels


def test_the_evaluator_gives_the_figures_of_all_batches():
    logits, labels = _logits_and_labels()
    ignored = logits > 3
    evaluator = _evaluator(logits, labels, ignored=ignored, top_k=2)
    found = evaluator.result(Classes(names=NAMES, threshold=0.5))
    options = {"ignored": ignored, "threshold": 0.5, "top_k": 2}
    expected = evaluate_scores(sigmoid(logits), labels, **options)
    assert found == metrics_json(expected, NAMES)
    assert json.loads(json.dumps(found)) == found
    assert (found["images"], found["decision"]) == (20, {"threshold": 0.5, "top_k": 2})
    assert [row["name"] for row in found["classes"]] == list(NAMES)
    assert [row["positives"] for row in found["classes"]] == (
        ((labels > 0) & ~ignored).sum(axis=0).tolist()
    )


@pytest.mark.parametrize("unannotated", [False, True])
def test_the_evaluator_takes_the_interpolated_precision_on_demand(unannotated):
    logits, labels = _logits_and_labels()
    labels[::7] = -1 if unannotated else 0
    found = _evaluator(logits, labels, interpolated=True).result(Classes(names=NAMES))
    counted = [labels[:, c] >= 0 for c in range(len(NAMES))]
    columns = [[x[rows, c, None] for x in (logits, labels)] for c, rows in enumerate(counted)]
    expected = [100 * average_precision(*column, interpolated=True)[0] for column in columns]
    np.testing.assert_allclose([row["AP"] for row in found["classes"]], expected, rtol=1e-6)
    plain = _evaluator(logits, labels).result(Classes(names=NAMES))
    assert found["mAP"] > plain["mAP"]


def test_the_evaluator_prints_what_it_found():
    evaluator = _evaluator(*_logits_and_labels())
    found = evaluator.result(Classes(names=NAMES))
    console = Console(width=120)
    with console.capture() as capture:
        evaluator.show(console)
    assert f"mAP {found['mAP']:.2f} on 20 images" in capture.get()


@pytest.mark.parametrize("partial", [False, True])
def test_figures_of_mapped_arrays_equal_those_in_memory(monkeypatch, partial):
    logits, labels = _logits_and_labels()
    if partial:
        labels[5:, 0] = -1
    classes = Classes(names=NAMES, threshold=0.5)
    in_memory = _evaluator(logits, labels, ignored=logits > 3)
    expected = in_memory.result(classes)
    monkeypatch.setattr(scores_module, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr("mljax.metrics.blocks.BLOCK_BYTES", 0)
    mapped = _evaluator(logits, labels, ignored=logits > 3)
    assert mapped.result(classes) == expected
    assert expected["partial_labels"] == partial
    for name in ("scores", "labels", "ignored"):
        assert isinstance(getattr(mapped.evaluation, name), np.memmap)
        assert not isinstance(getattr(in_memory.evaluation, name), np.memmap)


def test_the_picture_is_written_into_the_folder(tmp_path):
    evaluator = _evaluator(*_logits_and_labels())
    evaluator.result(Classes(names=NAMES))
    (path,) = evaluator.pictures(tmp_path)
    assert path == tmp_path / "average_precision.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("count", [1, 130])
def test_the_picture_has_a_bar_for_each_class_or_the_extremes(tmp_path, count):
    scores, labels = _scores_and_labels(k=count)
    labels[:, 0] = -1
    found = evaluate_scores(scores, labels)
    found = dataclasses.replace(found, mean_average_precision=50.0)
    draw_average_precision(found, [f"[${c}_" for c in range(count)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        # 150 pixels an inch; 0.2 inches a bar, of 100 bars at most.
        assert picture.height == {1: 300, 130: 150 * 21}[count]


def test_a_top_k_below_one_raises():
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        Multilabel(top_k=0)
