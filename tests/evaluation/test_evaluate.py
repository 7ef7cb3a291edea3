"""Evaluators get every image of a split once, in order, from one host or several."""

import dataclasses
import socket

import jax
import numpy as np
import pytest
from PIL import Image

from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.data.records import Records
from mljax.data.sparse_labels import SparseLabels
from mljax.evaluation.evaluate import (
    evaluate_model,
    in_order_of,
    merge_figures,
    run_evaluators,
)
from mljax.evaluators import Multilabel
from mljax.models.inference import outputs_read
from tests import networks, runs
from tests.evaluation.batches import Recorder, apply, make_batches, make_labels

ORDER = [3, 1, 0, 2, 4, 5, 6, 7, 8, 9]


def _run(batches, network=apply):
    recorder = Recorder()
    skipped = run_evaluators({"network": network}, {"network": [recorder]}, batches)
    return recorder.joined(), skipped


def test_an_evaluator_gets_each_image_once_in_order_with_its_outputs():
    labels = make_labels()
    found, skipped = _run(make_batches(labels))
    assert found.keys() == {"logits", "features", "labels", "valid", "index"}
    np.testing.assert_array_equal(found["labels"], labels)
    np.testing.assert_array_equal(found["index"], np.arange(20))
    np.testing.assert_array_equal(found["features"][:, 0], np.arange(20))
    assert found["valid"].all()
    assert skipped == []


def test_skipped_images_are_left_out_and_named():
    labels = make_labels()
    found, skipped = _run(make_batches(labels, invalid=[3, 17], ignored=labels > 0))
    assert skipped == [3, 17]
    np.testing.assert_array_equal(found["index"], np.delete(np.arange(20), [3, 17]))
    np.testing.assert_array_equal(found["labels"], np.delete(labels, [3, 17], axis=0))
    np.testing.assert_array_equal(found["ignored"], np.delete(labels > 0, [3, 17], axis=0))


def test_each_network_has_its_own_evaluators():
    recorders = {"plain": [Recorder(), Recorder()], "averaged": [Recorder()]}
    other = {"plain": apply, "averaged": lambda images: {"logits": -apply(images)["logits"]}}
    run_evaluators(other, recorders, make_batches(make_labels()))
    first, second = (recorder.joined() for recorder in recorders["plain"])
    np.testing.assert_array_equal(first["logits"], second["logits"])
    averaged = recorders["averaged"][0].joined()
    np.testing.assert_array_equal(averaged["logits"], -first["logits"])
    np.testing.assert_array_equal(averaged["index"], first["index"])


def test_every_host_gets_the_rows_of_all_in_the_order_of_the_records(monkeypatch):
    labels = make_labels(19)
    whole, skipped = _run(make_batches(labels, invalid=[3, 17], ignored=labels > 0))

    def slices(host):
        rows = slice(4 * host, 4 * host + 4)
        for batch in make_batches(labels, invalid=[3, 17], ignored=labels > 0):
            yield {key: value[rows] for key, value in batch.items()}

    monkeypatch.setattr("jax.process_count", lambda: 2)
    sent = []
    gather = "mljax.evaluation.evaluate.multihost_utils.process_allgather"
    monkeypatch.setattr(gather, lambda rows, tiled: sent.append(rows) or rows)
    _run(slices(1))
    others = iter(sent)

    def allgather(rows, tiled):
        assert tiled
        return jax.tree.map(lambda *both: np.concatenate(both), rows, next(others))

    monkeypatch.setattr(gather, allgather)
    gathered, skipped_by_all = _run(slices(0))
    assert skipped_by_all == skipped == [3, 17]
    assert gathered.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(gathered[name], array)


def test_nothing_to_evaluate_raises():
    with pytest.raises(ValueError, match="nothing to evaluate: 3 images"):
        _run(make_batches(make_labels(3), invalid=[0, 1, 2]))
    with pytest.raises(ValueError, match="nothing to evaluate: 0 images"):
        _run([])


def test_outputs_are_read_once_each():
    first, second = Recorder(), Recorder()
    second.reads = ("features", "means")
    assert outputs_read([first, second]) == ("logits", "features", "means")


def test_figures_of_several_evaluators_are_one_dict():
    assert merge_figures([{"mAP": 1.0}, {"loss": 2.0}]) == {"mAP": 1.0, "loss": 2.0}
    with pytest.raises(ValueError, match="two evaluators give the figure a, b"):
        merge_figures([{"b": 1, "a": 2, "c": 3}, {"a": 1, "b": 1}])


def _records(**changes):
    return dataclasses.replace(digits("val", num_images=20), **changes)


def _evaluate(records, **options):
    recorder = Recorder()
    recorder.reads = ("logits",)
    options = {"batch_size": 8, **options}
    model = options.pop("model", networks.model())
    figures, skipped = evaluate_model(model, records, evaluators=[recorder], **options)
    return figures, recorder, skipped


def test_outputs_are_those_of_the_network_called_directly():
    figures, recorder, skipped = _evaluate(_records(), threshold=0.25)
    assert (figures, skipped) == ({"images": 20}, [])
    images = digits("val", num_images=20).images / np.float32(255)
    model = networks.model()
    # Compiled: operation by operation it takes much longer.
    logits = jax.jit(lambda images: model(images)["logits"])(images)
    np.testing.assert_allclose(recorder.joined()["logits"], logits, atol=1e-4)
    assert (recorder.classes.names, recorder.classes.threshold) == (CLASS_NAMES, 0.25)


def test_classes_are_matched_by_name():
    model = networks.model(class_names=tuple(CLASS_NAMES[c] for c in ORDER))
    records = in_order_of(model, _records(ignored=_records().labels > 0))
    assert records.class_names == model.class_names
    np.testing.assert_array_equal(records.labels, _records().labels[:, ORDER])
    np.testing.assert_array_equal(records.ignored, _records().labels[:, ORDER] > 0)


def test_sparse_labels_are_matched_by_name_too():
    unannotated = np.arange(200).reshape(20, 10) % 3 == 0
    dense = np.where(unannotated, -1, _records().labels).astype(np.int8)
    rows, columns = np.nonzero(dense >= 0)
    present = dense[rows, columns] == 1
    labels = SparseLabels.from_annotations(rows, columns, present, shape=dense.shape)
    model = networks.model(class_names=tuple(CLASS_NAMES[c] for c in ORDER))
    records = in_order_of(model, _records(labels=labels))
    assert isinstance(records.labels, SparseLabels)
    np.testing.assert_array_equal(np.stack(list(records.labels)), dense[:, ORDER])


def test_names_that_match_in_part_are_refused_with_both_sides():
    model = networks.model(class_names=("null", *CLASS_NAMES[1:]))
    with pytest.raises(ValueError, match="null.* zero.*--match position"):
        in_order_of(model, _records())


@pytest.mark.parametrize("match", ["name", "position"])
def test_other_class_names_are_matched_by_position_with_a_warning(match):
    names = ("null", *CLASS_NAMES[1:]) if match == "position" else tuple("abcdefghij")
    model = networks.model(class_names=names)
    with pytest.warns(UserWarning, match=f"{names[0]} / zero"):
        records = in_order_of(model, _records(), match)
    assert records.class_names == model.class_names
    np.testing.assert_array_equal(records.labels, _records().labels)


def test_a_network_without_names_takes_those_of_the_split():
    records = _records()
    assert in_order_of(networks.model(class_names=None), records) is records


def test_other_number_of_classes_raises():
    records = _records(labels=np.zeros((20, 2), np.int8), class_names=("cat", "dog"))
    with pytest.raises(ValueError, match="10 classes, the split has 2 .*cat, dog"):
        _evaluate(records)


def test_class_vectors_need_a_head_that_reads_them():
    records = _records(class_vectors=np.ones((10, 5), np.float32))
    with pytest.raises(ValueError, match="a linear head cannot read"):
        _evaluate(records)


def _with_a_bad_image(folder):
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{number}.png") for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    (folder / "3.png").write_bytes(b"no image")
    labels = rng.integers(0, 2, (5, 10)).astype(np.int8)
    return Records(images=paths, labels=labels, class_names=CLASS_NAMES)


def test_bad_images_are_skipped_by_name(tmp_path):
    records = _with_a_bad_image(tmp_path)
    figures, recorder, skipped = _evaluate(records, bad_images="skip")
    assert figures == {"images": 4}
    assert skipped == [str(tmp_path / "3.png")]
    labels = np.delete(records.labels, 3, axis=0)
    np.testing.assert_array_equal(recorder.joined()["labels"], labels)
    with pytest.raises(ValueError, match=r"3\.png"):
        _evaluate(records)


def test_preprocessing_is_the_models_or_given():
    model = networks.model(preprocessing=None)
    with pytest.raises(ValueError, match="how its images are prepared"):
        _evaluate(_records(), model=model)
    _, given, _ = _evaluate(_records(), model=model, preprocessing=networks.PREPROCESSING)
    _, own, _ = _evaluate(_records())
    np.testing.assert_array_equal(given.joined()["logits"], own.joined()["logits"])


@pytest.mark.parametrize("threshold", [70, -0.1, float("nan")])
def test_a_threshold_out_of_range_raises(threshold):
    with pytest.raises(ValueError, match=f"threshold must be from 0 to 1, got {threshold}"):
        _evaluate(_records(), threshold=threshold)


def test_an_output_that_the_head_lacks_is_named():
    recorder = Recorder()
    recorder.reads = ("logits", "means")
    with pytest.raises(ValueError, match="head linear gives logits, but not means"):
        evaluate_model(networks.model(), _records(), evaluators=[recorder], batch_size=8)


OF_TWO = """
import sys
import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from mljax.data.readers.digits import digits
from mljax.evaluation import evaluate_model
from mljax.evaluators import Multilabel
from mljax.models.inference import outputs_read
from tests import networks

records = digits("val", num_images=20)
figures, _ = evaluate_model(networks.model(), records, evaluators=[Multilabel()], batch_size=8)
print(f"{figures['images']} images, mAP {figures['mAP']:.4f}")
"""


@pytest.mark.slow
def test_two_processes_count_each_image_once():
    alone, _ = evaluate_model(networks.model(), _records(), evaluators=[Multilabel()], batch_size=8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pair = [runs.start("-c", OF_TWO, address, i) for i in range(2)]
    shown = [process.communicate(timeout=300)[0] for process in pair]
    for text in shown:
        assert f"20 images, mAP {alone['mAP']:.4f}" in text
