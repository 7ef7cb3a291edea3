"""`--set` of the command that evaluates: the whole config, before `--data`."""

import pytest

from mljax.checkpoints.checkpoint import save_model
from mljax.config import override
from mljax.evaluate import main
from tests import networks, small_configs


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, networks.model(), config=small_configs.config())


@pytest.fixture
def used(monkeypatch):
    """Returns what the evaluation was asked for; no network runs."""
    options = {}

    def evaluate_model(model, records, **given):
        options.update(given, images=len(records))
        raise ValueError("enough")

    monkeypatch.setattr("mljax.evaluate.evaluate_model", evaluate_model)
    return options


def test_set_changes_data_and_evaluation(checkpoint, used):
    changes = ["--set", "eval.threshold=0.2", "--set", "data.max_pixels=7"]
    changes += ["--set", "data.cache=kept", "--set", "data.reader.kwargs.num_images=5"]
    main(["--checkpoint", str(checkpoint), *changes])
    assert (used["threshold"], used["max_pixels"], used["images"]) == (0.2, 7, 5)
    assert used["cache"] == "kept"


def test_the_folder_of_the_training_for_resized_images_is_left_alone(tmp_path, used):
    trained = override(small_configs.config(), ["data.cache=elsewhere"])
    save_model(tmp_path / "network", networks.model(), config=trained)
    main(["--checkpoint", str(tmp_path / "network")])
    assert used["images"] and used["cache"] is None


def test_data_changes_what_set_left(checkpoint, used):
    changes = ["--set", "data.reader=digits", "--data", "reader.kwargs.num_images=4"]
    main(["--checkpoint", str(checkpoint), *changes])
    assert used["images"] == 4


def test_a_change_that_evaluate_does_not_read_is_told(checkpoint, used, capsys):
    main(["--checkpoint", str(checkpoint), "--set", "train.epochs=3"])
    assert "--set train.epochs=3 changes nothing here" in capsys.readouterr().out
