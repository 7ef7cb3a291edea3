"""Calibration by the command, and who uses its thresholds."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flax import nnx

from mljax import calibrate, evaluate, predict
from mljax.checkpoints.checkpoint import load_model, save_model
from mljax.config import ModelConfig, part
from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.evaluation.decisions import decision_of
from mljax.evaluation.predictions import Predictor
from mljax.evaluation.scores import sigmoid
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.thresholds import best_f1_thresholds
from mljax.models.classifier import create_model
from mljax.models.inference import make_apply
from tests import networks, small_configs
from tests.photos import save_photo

# The first class has no image, the last none without it.
TOTAL = 20


def few_classes(split, **kwargs):
    records = digits(split, **kwargs)
    records.labels[:, 0], records.labels[:, 9] = 0, 1
    return records


class Patches(nnx.Module):
    """A layer of patches, compiled in no time."""

    num_features = 32

    def __init__(self, *, dtype, rngs):
        self.conv = nnx.Conv(3, 32, (8, 8), strides=8, dtype=dtype, rngs=rngs)

    def __call__(self, images):
        return nnx.relu(self.conv(images))


def _model(dtype):
    model = create_model(Patches, num_classes=10, dtype=dtype, rngs=nnx.Rngs(0))
    # Scores of all sizes.
    model.head.linear.kernel[...] *= 1000
    model.class_names, model.preprocessing = CLASS_NAMES, networks.PREPROCESSING
    return model


@pytest.fixture(scope="module", params=[None, "bfloat16"])
def calibrated(request, tmp_path_factory):
    """Returns a checkpoint that the command has calibrated."""
    config = small_configs.config(reader=part(few_classes, num_images=TOTAL))
    config = dataclasses.replace(config, model=ModelConfig(backbone=part(Patches)))
    folder = tmp_path_factory.mktemp("run") / "model"
    save_model(folder, _model(request.param), config=config)
    assert calibrate.main(["--checkpoint", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def scored(calibrated):
    """Returns logits and labels of the training split."""
    records = few_classes("train", num_images=TOTAL)
    images = records.images / np.float32(255)
    apply = make_apply(load_model(calibrated))
    batches = [apply(images[i : i + 8])["logits"] for i in (0, 8)]
    last = np.concatenate([images[16:], np.zeros_like(images[:4])])
    batches.append(apply(last)["logits"][:4])
    return np.concatenate(batches), records.labels


def _evaluate(checkpoint, *options):
    output = checkpoint.with_name("figures.json")
    arguments = ["--checkpoint", str(checkpoint), "--output", str(output), *options]
    assert evaluate.main(arguments) == 0
    return json.loads(output.read_text())


def test_evaluation_on_the_training_split_has_the_f1_that_were_chosen(calibrated, scored):
    chosen = best_f1_thresholds(*scored)
    stored = np.array(load_model(calibrated).thresholds)
    np.testing.assert_array_equal(stored[1:], chosen.values[1:])
    figures = _evaluate(calibrated, "--split", "train")
    assert [row["F1"] for row in figures["classes"]] == chosen.f1.tolist()
    assert chosen.f1[9] == 100
    assert figures["decision"]["threshold"] == pytest.approx(sigmoid(stored).tolist())
    expected = precision_recall_f1(*scored, threshold=stored.astype(np.float32))
    for name in ("CF1", "OF1", "IF1"):
        assert figures["overall"][name] == getattr(expected, name)
    assert (
        figures["overall"]["CF1"]
        > _evaluate(calibrated, "--split", "train", "--threshold", "0.6")["overall"]["CF1"]
    )


def test_a_class_without_positive_keeps_the_threshold_of_the_config(calibrated):
    first = load_model(calibrated).thresholds[0]
    assert 1 / (1 + np.exp(-first)) == pytest.approx(0.6)


def test_an_option_and_what_is_set_come_before_calibrated_thresholds(calibrated):
    assert len(_evaluate(calibrated)["decision"]["threshold"]) == 10
    for options in (["--threshold", "0.3"], ["--set", "eval.threshold=0.3"]):
        assert _evaluate(calibrated, *options)["decision"]["threshold"] == 0.3


def test_prediction_decides_as_the_evaluation(calibrated, tmp_path, capsys):
    photos = [str(save_photo(tmp_path / f"{n}.png", n)) for n in range(4)]
    model = load_model(calibrated)
    found = list(Predictor(model, batch_size=4)(photos))
    thresholds = sigmoid(np.array(model.thresholds))
    for each in found:
        # None of these lies at a threshold.
        predicted = {CLASS_NAMES[c] for c in np.flatnonzero(each.scores > thresholds)}
        assert {name for name, _ in each.labels} == predicted
    command = ["--checkpoint", str(calibrated), "--json", "--batch-size", "4"]

    def labels(*options):
        capsys.readouterr()
        assert predict.main([*command, *options, *photos]) == 0
        rows = map(json.loads, capsys.readouterr().out.splitlines())
        return [[label["name"] for label in row["labels"]] for row in rows]

    assert labels() == [[name for name, _ in each.labels] for each in found]
    config = small_configs.write_training_config(tmp_path)
    others = [labels(*options) for options in (["--threshold", "0.8"], ["--config", config])]
    # The config has the default, 0.8, and comes in the place of all that the checkpoint has.
    assert others[0] == others[1] == labels("--set", "eval.threshold=0.8")
    assert others[0] != labels()


def test_scores_that_are_equal_are_told_apart_by_their_logits():
    model = networks.pixel_model()
    model.thresholds = (25.0, 25.0, -1e38)
    decide = decision_of(model, None)
    logits = np.array([[20, 30, -300]], np.float32)
    assert sigmoid(logits)[0, 0] == sigmoid(logits)[0, 1]
    assert decide(logits).tolist() == [[False, True, True]]
    assert decision_of(model, 0.5)(logits).tolist() == [[True, True, False]]


def test_a_class_without_label_above_its_threshold_is_named(calibrated, tmp_path, capsys):
    folder = shutil.copytree(calibrated, tmp_path / "model")
    calibrate.save_thresholds(folder, calibrate.Thresholds(logits=(1e30,) * 10))
    photo = str(save_photo(tmp_path / "1.png"))
    assert predict.main(["--checkpoint", str(folder), "--batch-size", "4", photo]) == 0
    assert "no label above its threshold; the highest is" in capsys.readouterr().out


def test_what_is_printed_names_the_split_and_the_figures(calibrated, tmp_path, capsys):
    folder = shutil.copytree(calibrated, tmp_path / "model")
    before = load_model(folder).thresholds
    unread = ["--set", "data.reader.kwargs.num_images=8", "--set", "seed=1"]
    assert calibrate.main(["--checkpoint", str(folder), "--split", "val", *unread]) == 0
    shown = capsys.readouterr().out
    assert "split val, 8 images" in shown and "--set seed=1 changes nothing here" in shown
    assert "F1 at 0.6" in shown and "CF1 " in shown and "the thresholds are in " in shown
    assert load_model(folder).thresholds != before


def test_a_checkpoint_without_config_needs_one(tmp_path, capsys):
    folder = save_model(tmp_path / "model", networks.model())
    assert calibrate.main(["--checkpoint", str(folder)]) == 1
    assert "--config" in capsys.readouterr().err
