"""The command that predicts: where its settings are from, and names that are no UTF-8."""

import io
import json
import os
import sys

import pytest

from mljax.checkpoints.checkpoint import save_model
from mljax.predict import main
from tests import networks, small_configs
from tests.photos import save_photo


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, networks.model(), config=small_configs.config())


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return str(save_photo(tmp_path_factory.mktemp("photos") / "a.png"))


@pytest.fixture
def used(monkeypatch):
    """Returns what the predictions were asked for; no network runs."""
    options = {}
    monkeypatch.setattr(
        "mljax.predict.predict", lambda *_, **given: iter(options.update(given) or ())
    )
    return options


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from mljax.config import Preprocessing, override\n"
        "from tests import small_configs\n"
        "def get_config():\n"
        "    wide = small_configs.config(preprocessing=Preprocessing(image_size=(64, 96)))\n"
        "    return override(wide, ['eval.threshold=0.3', 'data.max_pixels=9'])\n"
    )
    return str(path)


def test_the_checkpoint_says_threshold_and_preprocessing(checkpoint, photo, used):
    assert main(["--checkpoint", str(checkpoint), photo]) == 0
    assert (used["threshold"], used["preprocessing"]) == (0.6, networks.PREPROCESSING)
    assert used["max_pixels"] == 2**26


def test_a_config_takes_the_place_of_the_checkpoints(checkpoint, photo, config, used, capsys):
    assert main(["--checkpoint", str(checkpoint), "--config", config, photo]) == 0
    assert (used["threshold"], used["max_pixels"]) == (0.3, 9)
    assert used["preprocessing"].image_size == (64, 96)
    assert f"as --config {config} says" in capsys.readouterr().err


def test_set_changes_the_config_and_options_change_both(checkpoint, photo, used):
    changes = ["--set", "eval.threshold=0.2", "--set", "data.preprocessing.image_size=(8, 16)"]
    changes += ["--set", "data.max_pixels=7"]
    assert main(["--checkpoint", str(checkpoint), *changes, photo]) == 0
    assert (used["threshold"], used["max_pixels"]) == (0.2, 7)
    assert used["preprocessing"].image_size == (8, 16)
    changes += ["--threshold", "0.1", "--max-pixels", "5", "--image-size", "24x48"]
    assert main(["--checkpoint", str(checkpoint), *changes, photo]) == 0
    assert (used["threshold"], used["max_pixels"]) == (0.1, 5)
    assert used["preprocessing"].image_size == (24, 48)


@pytest.mark.parametrize("change", ["train.epochs=3", "data.reader.kwargs.seed=3"])
def test_a_change_that_predict_does_not_read_is_told(checkpoint, photo, used, capsys, change):
    assert main(["--checkpoint", str(checkpoint), "--set", change, photo]) == 0
    assert f"--set {change} changes nothing here" in capsys.readouterr().err


def test_set_without_a_config_is_an_error(photo, tmp_path, capsys):
    checkpoint = save_model(tmp_path / "model", networks.model())
    arguments = ["--checkpoint", str(checkpoint), "--set", "eval.threshold=0.2", photo]
    assert main(arguments) == 1
    assert f"{checkpoint} holds no config; name one by --config" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["8x", "x", "8x8x8", "-3", "8x0", "a"])
def test_a_size_that_is_none_is_an_error(checkpoint, photo, capsys, size):
    assert main(["--checkpoint", str(checkpoint), f"--image-size={size}", photo]) == 1
    assert f"--image-size: got {size}, expected at least 1 pixel" in capsys.readouterr().err


def test_files_passed_over_are_counted(checkpoint, tmp_path, used, capsys):
    save_photo(tmp_path / "a.png")
    for name in ("notes.txt", "more.txt", "._a.png"):
        (tmp_path / name).write_text("no image")
    assert main(["--checkpoint", str(checkpoint), str(tmp_path)]) == 0
    shown = capsys.readouterr().err
    assert f"2 files, such as {tmp_path / 'more.txt'}" in shown
    assert f"1 hidden file, such as {tmp_path / '._a.png'}" in shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_name_that_is_no_utf_8_is_escaped_and_the_rest_done(
    checkpoint, tmp_path, monkeypatch, encoding, options
):
    named = os.fsencode(tmp_path) + b"/caf\xe9.png"
    save_photo(tmp_path / "b.png").rename(os.fsdecode(named))
    (tmp_path / os.fsdecode(b"bad\xff.png")).write_bytes(b"no image")
    save_photo(tmp_path / "z.png")
    streams = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, raw in streams.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding, write_through=True))
    assert main(["--checkpoint", str(checkpoint), *options, str(tmp_path)]) == 1
    lines = streams["stdout"].getvalue().decode().splitlines()
    if options:
        lines = [json.loads(line)["image"] for line in lines]
    names = [r"bad\xff.png", r"caf\xe9.png", "z.png"]
    assert [n for n, line in zip(names, lines, strict=True) if f"{tmp_path}/{n}" in line] == names
    assert rf"skipped: {tmp_path}/bad\xff.png" in streams["stderr"].getvalue().decode()
