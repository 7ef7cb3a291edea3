"""Prediction by the command, on a small checkpoint."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mljax.checkpoints.checkpoint import save_model
from mljax.data.readers.digits import CLASS_NAMES
from mljax.predict import main
from tests import networks, small_configs
from tests.photos import save_photo


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, networks.model(), config=small_configs.config())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [str(save_photo(folder / f"{n}.png", n, size=(50 + n, 40))) for n in range(5)]


@pytest.fixture(scope="module")
def scores(photos):
    """Returns the photos' scores by the network called directly."""
    model = networks.model()
    pixels = [Image.open(path).resize((32, 32), Image.Resampling.BILINEAR) for path in photos]
    images = jnp.asarray(np.stack([np.asarray(p) for p in pixels]) / np.float32(255))
    return np.asarray(jax.jit(lambda x: jax.nn.sigmoid(model(x)["logits"]))(images))


def _expected(scores, threshold):
    order = np.argsort(-scores)
    return [(CLASS_NAMES[c], float(scores[c])) for c in order if scores[c] > threshold]


def test_output_that_is_a_file_is_refused_first(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "file")]
    assert main([*arguments, photos[0]]) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_command_prints_a_line_an_image(checkpoint, photos, scores, capsys):
    assert main(["--checkpoint", str(checkpoint), *photos]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 0.6 is the config's threshold.
    labels = [[f"{name} {v:.2f}" for name, v in _expected(row, 0.6)] for row in scores]
    assert lines == [f"{p}: {', '.join(row)}" for p, row in zip(photos, labels, strict=True)]


def test_command_names_the_closest_class_where_none_passes(checkpoint, photos, scores, capsys):
    assert main(["--checkpoint", str(checkpoint), "--threshold", "1", photos[0]]) == 0
    name, score = _expected(scores[0], 0)[0]
    expected = f"{photos[0]}: no label above 1; the closest is {name} {score:.2f}\n"
    assert capsys.readouterr().out == expected


def test_json_has_one_line_an_image_and_nothing_else_on_stdout(checkpoint, photos, capsys):
    assert main(["--checkpoint", str(checkpoint), "--json", "--top-k", "1", *photos]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == photos
    for row in rows:
        (label,) = row["labels"]
        assert label["name"] in CLASS_NAMES
        assert 0.6 < label["score"] <= 1


def test_bad_images_are_named_and_counted_and_the_others_done(checkpoint, photos, tmp_path, capsys):
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    bad.write_bytes(b"no image")
    arguments = [photos[0], str(bad), str(missing), photos[1]]
    assert main(["--checkpoint", str(checkpoint), "--json", *arguments]) == 1
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert ["error" in row for row in rows] == [False, True, True, False]
    assert rows[3]["labels"]
    assert f"skipped: {bad}: cannot be read as an image" in shown.err
    assert f"skipped: {missing}" in shown.err
    assert "2 of 4 images could not be read" in shown.err


def test_missing_class_names_become_numbers_with_a_notice(photos, tmp_path, capsys):
    model = networks.model(class_names=None)
    checkpoint = save_model(tmp_path / "model", model, config=small_configs.config())
    assert main(["--checkpoint", str(checkpoint), photos[0]]) == 0
    shown = capsys.readouterr()
    assert "no class names" in shown.err
    label = shown.out.removeprefix(f"{photos[0]}: ").split()[0]
    assert 0 <= int(label) < 10


def test_image_size_replaces_the_checkpoints(checkpoint, photos, capsys):
    options = ["--checkpoint", str(checkpoint), "--json", "--threshold", "0", photos[0]]
    assert main(options) == 0
    assert main([*options, "--image-size", "64"]) == 0
    small, large = map(json.loads, capsys.readouterr().out.splitlines())
    assert small["labels"] != large["labels"]
    assert main([*options, "--image-size", "0"]) == 1
    assert "--image-size: got 0" in capsys.readouterr().err


def test_resize_replaces_the_checkpoints_filter(checkpoint, photos, capsys):
    options = ["--checkpoint", str(checkpoint), "--json", "--threshold", "0", photos[0]]
    for resize in ("bilinear", "bicubic"):
        assert main([*options, "--resize", resize]) == 0
    assert main(options) == 0
    bilinear, bicubic, own = map(json.loads, capsys.readouterr().out.splitlines())
    assert own == bilinear
    assert own["labels"] != bicubic["labels"]


def test_missing_checkpoint_is_an_error_in_one_line(photos, tmp_path, capsys):
    assert main(["--checkpoint", str(tmp_path), photos[0]]) == 1
    assert capsys.readouterr().err.startswith(f"error: no checkpoint at {tmp_path}")


def test_annotated_pictures_never_replace_an_input(checkpoint, tmp_path, capsys):
    first = save_photo(tmp_path / "cat.png", 1)
    second = save_photo(tmp_path / "more" / "cat.png", 2)
    earlier = save_photo(tmp_path / "cat-labels.jpg", 3)
    before = {path: path.read_bytes() for path in (first, second, earlier)}
    assert main(["--checkpoint", str(checkpoint), "--output", str(tmp_path), str(tmp_path)]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    assert f"3 pictures with labels written to {tmp_path}" in capsys.readouterr().err
    made = {path.name for path in tmp_path.glob("*.jpg")} - {"cat-labels.jpg"}
    assert made == {"cat-labels-2.jpg", "cat-labels-3.jpg", "cat-labels-labels.jpg"}
