"""The evaluation command, on a small checkpoint."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mljax.checkpoints.checkpoint import save_model
from mljax.data.readers.digits import CLASS_NAMES, digits
from mljax.evaluate import main
from mljax.metrics.decisions import precision_recall_f1
from mljax.metrics.ranking import average_precision, mean_average_precision
from tests import networks, small_configs
from tests.photos import save_photo


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, networks.model(), config=small_configs.config())


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("converted") / "model", networks.model())


@pytest.fixture(scope="module")
def expected():
    """Returns scores and labels of the config's split, by the network called directly."""
    records = digits("val", num_images=20)
    images = jnp.asarray(records.images / np.float32(255))
    model = networks.model()
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
    assert figures["decision"]["threshold"] == 0.6
    assert figures["overall"]["CF1"] == pytest.approx(found.CF1)
    top = precision_recall_f1(scores, labels, threshold=0.6, top_k=3)
    assert figures["top"]["OR"] == pytest.approx(top.OR)
    assert (figures["images"], figures["split"], figures["skipped"]) == (20, "val", [])
    shown = capsys.readouterr().out
    assert f"mAP {score:.2f} on 20 images" in shown
    assert "seven" in shown
    assert f"{found.OF1:.2f}" in shown


def test_command_takes_split_threshold_evaluator_and_data(checkpoint, tmp_path):
    output = tmp_path / "figures.json"
    options = "--split test --threshold 0.25 --evaluator multilabel:top_k=2"
    options += " --data reader.kwargs.num_images=5"
    assert main(f"--checkpoint {checkpoint} --output {output} {options}".split()) == 0
    figures = json.loads(output.read_text())
    assert (figures["images"], figures["split"]) == (5, "test")
    assert figures["decision"] == {"threshold": 0.25, "top_k": 2}


def test_figures_lie_beside_the_sealed_checkpoint(checkpoint):
    assert main(["--checkpoint", str(checkpoint)]) == 0
    assert checkpoint.with_name("model.metrics.json").is_file()
    assert main(["--checkpoint", str(checkpoint)]) == 0


def test_workdir_stands_for_its_best_network_and_holds_the_figures(tmp_path):
    best = save_model(tmp_path / "best" / "5", networks.model(), config=small_configs.config())
    assert main(["--checkpoint", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["checkpoint"] == str(best)


def test_converted_checkpoint_needs_a_config_for_its_data(converted, tmp_path, capsys):
    assert main(["--checkpoint", str(converted)]) == 1
    shown = capsys.readouterr().err
    assert str(converted) in shown and "--config" in shown and "--list-configs" in shown
    config = tmp_path / "config.py"
    config.write_text("from tests import small_configs\nget_config = small_configs.config\n")
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
        (["--evaluator", "multilabel:top_k=0"], "top_k must be at least 1, got 0"),
        (["--evaluator", "multilabel:top_k=x"], "'top_k' must be a whole number, got 'x'"),
        (["--evaluator", "multilabel:top=1"], "takes no argument 'top'; did you mean top_k"),
        (["--evaluator", "multilabel:2"], "--evaluator multilabel:2: expected name=value"),
        (["--evaluator", "multilabl:top_k=2"], "did you mean multilabel"),
        (["--evaluator", "multilabl"], "unknown evaluator 'multilabl'; did you mean multilabel"),
        (["--data", "preprocessing.image_size=0"], "image_size must be positive and finite, got 0"),
        (["--data", "reader.kwargs.num_images=x"], "'num_images' must be a whole number"),
    ],
)
def test_options_that_cannot_be_are_errors(checkpoint, monkeypatch, capsys, options, message):
    monkeypatch.setattr("mljax.evaluation.evaluate.run_evaluators", None)
    assert main(["--checkpoint", str(checkpoint), *options]) == 1
    assert message in capsys.readouterr().err


OWN_EVALUATOR = """
class Own:
    reads = ("logits",)

    def __init__(self, *, scale=1.0):
        self.scale, self.images = scale, 0

    def update(self, outputs, batch):
        self.images += len(outputs["logits"])

    def result(self, classes):
        return {"own": self.scale * self.images}

    def show(self, console):
        console.print("own figure", self.images)

    def pictures(self, folder):
        path = folder / "own.txt"
        path.write_text("drawn")
        return [path]
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_evaluators.py").write_text(OWN_EVALUATOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys.modules["mljax.config.part"], "_PLUGINS", set())
    yield "own_evaluators"
    sys.modules.pop("own_evaluators", None)


def test_an_evaluator_of_a_plugin_adds_its_figures(checkpoint, own_module, tmp_path, capsys):
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "figures.json")]
    options += ["--evaluator", f"{own_module}:Own:scale=2.5"]
    assert main(options) == 1
    assert f"--plugin {own_module}" in capsys.readouterr().err
    assert main([*options, "--plugin", own_module]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["own"], figures["images"]) == (50.0, 20)
    assert "own figure 20" in capsys.readouterr().out


def test_a_plugin_that_does_not_exist_is_an_error(checkpoint, capsys):
    assert main(["--checkpoint", str(checkpoint), "--plugin", "own_absent"]) == 1
    assert "error: plug-in own_absent" in capsys.readouterr().err


def test_pictures_are_written_into_a_folder(checkpoint, tmp_path, capsys):
    folder = tmp_path / "new" / "pictures"
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "figures.json")]
    assert main([*options, "--pictures", str(folder)]) == 0
    assert [path.name for path in folder.iterdir()] == ["average_precision.png"]
    shown = capsys.readouterr().out.replace("\n", "")
    assert str(folder / "average_precision.png") in shown
    assert str(tmp_path / "figures.json") in shown


def test_pictures_that_cannot_be_drawn_end_the_command_before_the_evaluation(
    checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    output = tmp_path / "figures.json"
    options = ["--checkpoint", str(checkpoint), "--output", str(output)]
    assert main([*options, "--pictures", str(tmp_path)]) == 1
    assert "pip install 'mljax[plot]'" in capsys.readouterr().err
    assert not output.exists()


def test_bad_images_are_printed_and_listed(checkpoint, tmp_path, capsys):
    for number in range(5):
        save_photo(tmp_path / f"{number}.png", number)
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [f"{n}.png," + ",".join(str((n + c) % 3 - 1) for c in range(10)) for n in range(5)]
    header = ",".join(["image", *CLASS_NAMES])
    (tmp_path / "val.csv").write_text("\n".join([header, *rows, "bad.png" + ",1" * 10]) + "\n")
    reader = {"name": "csv", "kwargs": {"root": str(tmp_path), "class_names": CLASS_NAMES}}
    output = tmp_path / "figures.json"
    options = ["--checkpoint", str(checkpoint), "--output", str(output)]
    assert main([*options, "--data", f"reader={reader}", "bad_images=skip"]) == 0
    figures = json.loads(output.read_text())
    assert (figures["images"], figures["partial_labels"]) == (5, True)
    assert [name.rsplit("/")[-1] for name in figures["skipped"]] == ["bad.png"]
    shown = capsys.readouterr().out.replace("\n", "")
    assert "skipped, cannot be read" in shown and str(tmp_path / "bad.png") in shown
