"""Evaluation in memory, and the command on a miniature checkpoint."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mljax.checkpoints.checkpoint import save_model
from mljax.data import READERS
from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.data.sparse_labels import SparseLabels
from mljax.evaluate import evaluate, evaluate_scores, main
from mljax.evaluation.multilabel import metrics_json, print_evaluation
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import (
    average_precision,
    mean_average_precision,
    partial_average_precision,
)
from tests import miniature


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


def _printed(evaluation, names):
    console = Console(width=120)
    with console.capture() as capture:
        print_evaluation(evaluation, names, console)
    return capture.get()


def test_report_says_what_partial_labels_leave_out():
    scores, labels = _scores_and_labels()
    labels[:, 1] = -1
    found = evaluate_scores(scores, labels)
    shown = _printed(found, ["a", "b", "c", "d"])
    assert "75.0% of the entries are annotated" in shown
    assert "undefined for 1 classes" in shown
    assert metrics_json(found, ["a", "b", "c", "d"])["classes"][1]["AP"] is None


def test_report_says_that_classes_without_positive_count():
    scores, labels = _scores_and_labels()
    labels[:, 2] = 0
    shown = _printed(evaluate_scores(scores, labels), ["a", "b", "c", "d"])
    assert "1 classes have no positive" in shown


def test_report_of_many_classes_shows_the_highest_and_the_lowest():
    scores, labels = _scores_and_labels(k=130)
    found = evaluate_scores(scores, labels)
    names = [f"[class{c}]" for c in range(130)]
    shown = _printed(found, names)
    assert "30 classes between" in shown
    order = np.argsort(found.average_precision)
    assert names[order[0]] in shown
    assert names[order[-1]] in shown
    assert names[order[65]] not in shown


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, miniature.model(), recipe=miniature.recipe())


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("converted") / "model", miniature.model())


@pytest.fixture(scope="module")
def expected():
    """Returns scores and labels of the recipe's split, by the network called directly."""
    records = digits("val", num_images=20)
    images = jnp.asarray(records.images / np.float32(255))
    model = miniature.model()
    # Compiled: operation by operation it takes much longer.
    scores = jax.jit(lambda images: jax.nn.sigmoid(model(images)["logits"]))(images)
    return np.asarray(scores), records.labels


def test_command_prints_and_writes_the_figures(checkpoint, expected, tmp_path, capsys):
    output = tmp_path / "new" / "figures.json"
    assert main(["--checkpoint", str(checkpoint), "--output", str(output)]) == 0
    figures = json.loads(output.read_text())
    scores, labels = expected
    score = mean_average_precision(scores, labels)
    assert figures["mAP"] == pytest.approx(score)
    ap = average_precision(scores, labels)
    assert [row["AP"] for row in figures["classes"]] == pytest.approx((100 * ap).tolist())
    assert [row["name"] for row in figures["classes"]] == list(CLASS_NAMES)
    assert [row["positives"] for row in figures["classes"]] == labels.sum(axis=0).tolist()
    found = precision_recall_f1(scores, labels, threshold=0.6)
    assert figures["threshold"] == 0.6
    assert figures["overall"]["CF1"] == pytest.approx(found.CF1)
    top = precision_recall_f1(scores, labels, threshold=0.6, top_k=3)
    assert figures["top"]["OR"] == pytest.approx(top.OR)
    assert (figures["images"], figures["split"], figures["skipped"]) == (20, "val", [])
    shown = capsys.readouterr().out
    assert f"mAP {score:.2f} on 20 images" in shown
    assert "seven" in shown
    assert f"{found.OF1:.2f}" in shown


def test_command_takes_split_threshold_top_k_and_data(checkpoint, tmp_path):
    output = tmp_path / "figures.json"
    options = "--split test --threshold 0.25 --top-k 2 --data reader.kwargs.num_images=5"
    assert main(f"--checkpoint {checkpoint} --output {output} {options}".split()) == 0
    figures = json.loads(output.read_text())
    assert (figures["images"], figures["split"]) == (5, "test")
    assert (figures["threshold"], figures["top_k"]) == (0.25, 2)


def test_figures_lie_beside_the_sealed_checkpoint(checkpoint):
    assert main(["--checkpoint", str(checkpoint)]) == 0
    assert checkpoint.with_name("model.metrics.json").is_file()
    assert main(["--checkpoint", str(checkpoint)]) == 0


def test_workdir_stands_for_its_best_network_and_holds_the_figures(tmp_path):
    best = save_model(tmp_path / "best" / "5", miniature.model(), recipe=miniature.recipe())
    assert main(["--checkpoint", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["checkpoint"] == str(best)


def test_converted_checkpoint_needs_a_recipe_for_its_data(converted, tmp_path, capsys):
    assert main(["--checkpoint", str(converted)]) == 1
    assert "--config FILE" in capsys.readouterr().err
    config = tmp_path / "config.py"
    config.write_text("from tests import miniature\nget_config = miniature.recipe\n")
    assert main(["--checkpoint", str(converted), "--config", str(config)]) == 0


def test_missing_checkpoint_is_an_error_in_one_line(tmp_path, capsys):
    assert main(["--checkpoint", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: no checkpoint at {tmp_path}")
    assert shown.count("\n") == 1


def test_unknown_data_path_is_an_error(checkpoint, capsys):
    assert main(["--checkpoint", str(checkpoint), "--data", "reader.name=didgits"]) == 1
    assert "did you mean digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "70"], "threshold must be from 0 to 1, got 70"),
        (["--top-k", "0"], "top_k must be at least 1, got 0"),
        (["--data", "preprocessing.image_size=0"], "image_size must be positive and finite, got 0"),
        (["--data", "reader.kwargs.num_images=x"], "'num_images' must be a whole number"),
    ],
)
def test_numbers_that_cannot_be_are_errors(checkpoint, monkeypatch, capsys, options, message):
    monkeypatch.setattr("mljax.evaluate.collect_scores", None)
    assert main(["--checkpoint", str(checkpoint), *options]) == 1
    assert message in capsys.readouterr().err


def test_classes_are_matched_by_name(expected):
    order = [3, 1, 0, 2, 4, 5, 6, 7, 8, 9]
    model = miniature.model(class_names=tuple(CLASS_NAMES[c] for c in order))
    found, names, _ = evaluate(model, miniature.recipe().data, split="val")
    assert names == model.class_names
    np.testing.assert_array_equal(found.labels, expected[1][:, order])


def test_sparse_labels_are_matched_by_name_too(expected, monkeypatch):
    dense = np.where(np.arange(200).reshape(20, 10) % 3 > 0, expected[1], -1).astype(np.int8)
    rows, columns = np.nonzero(dense >= 0)
    present = dense[rows, columns] == 1
    labels = SparseLabels.from_annotations(rows, columns, present, shape=dense.shape)
    records = dataclasses.replace(digits("val", num_images=20), labels=labels)
    monkeypatch.setitem(READERS, "sparse", lambda split: records)
    order = [3, 1, 0, 2, 4, 5, 6, 7, 8, 9]
    model = miniature.model(class_names=tuple(CLASS_NAMES[c] for c in order))
    data = dataclasses.replace(miniature.recipe().data, reader=miniature.part("sparse"))
    found, _, _ = evaluate(model, data, split="val")
    np.testing.assert_array_equal(found.labels, dense[:, order])
    assert found.partial


def test_other_class_names_are_matched_by_position_with_a_warning(expected):
    model = miniature.model(class_names=("null", *CLASS_NAMES[1:]))
    with pytest.warns(UserWarning, match="1 classes .* null / zero"):
        found, names, _ = evaluate(model, miniature.recipe().data, split="val")
    assert names == model.class_names
    np.testing.assert_array_equal(found.labels, expected[1])


def _csv(folder):
    """Writes five photos and a bad one, with partial labels; returns data that reads them."""
    for number in range(5):
        miniature.save_photo(folder / f"{number}.png", number)
    (folder / "bad.png").write_bytes(b"no image")
    rows = [f"{n}.png," + ",".join(str((n + c) % 3 - 1) for c in range(10)) for n in range(5)]
    header = ",".join(["image", *CLASS_NAMES])
    (folder / "val.csv").write_text("\n".join([header, *rows, "bad.png" + ",1" * 10]) + "\n")
    reader = miniature.part("csv", root=str(folder), class_names=CLASS_NAMES)
    return miniature.recipe(reader=reader, bad_images="skip").data


def test_bad_images_are_skipped_by_name(tmp_path):
    found, _, skipped = evaluate(miniature.model(), _csv(tmp_path), split="val")
    assert [name.rsplit("/")[-1] for name in skipped] == ["bad.png"]
    assert found.labels.shape == (5, 10)
    assert found.partial


def test_other_number_of_classes_raises(tmp_path):
    data = _csv(tmp_path)
    (tmp_path / "val.csv").write_text("image,cat,dog\n0.png,1,0\n")
    reader = miniature.part("csv", root=str(tmp_path), class_names=("cat", "dog"))
    data = miniature.recipe(reader=reader).data
    with pytest.raises(ValueError, match="10 classes, the split has 2"):
        evaluate(miniature.model(), data, split="val")
