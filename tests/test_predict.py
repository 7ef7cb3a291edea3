"""Prediction from Python and by the command, on a miniature checkpoint."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mljax.checkpoints.checkpoint import save_model
from mljax.config.schema import Preprocessing
from mljax.data.readers.digits import CLASS_NAMES
from mljax.predict import annotate, find_images, main, predict
from tests import miniature


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    return save_model(folder, miniature.model(), recipe=miniature.recipe())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [str(miniature.save_photo(folder / f"{n}.png", n, size=(50 + n, 40))) for n in range(5)]


@pytest.fixture(scope="module")
def scores(photos):
    """Returns the photos' scores by the network called directly."""
    model = miniature.model()
    pixels = [Image.open(path).resize((32, 32), Image.Resampling.BILINEAR) for path in photos]
    images = jnp.asarray(np.stack([np.asarray(p) for p in pixels]) / np.float32(255))
    return np.asarray(jax.jit(lambda x: jax.nn.sigmoid(model(x)["logits"]))(images))


def _expected(scores, threshold):
    order = np.argsort(-scores)
    return [(CLASS_NAMES[c], float(scores[c])) for c in order if scores[c] > threshold]


def test_predictions_are_those_of_the_network_whatever_the_batch_size(photos, scores):
    for batch_size in (2, 32):
        found = list(predict(miniature.model(), photos, threshold=0.6, batch_size=batch_size))
        assert [p.path for p in found] == photos
        for prediction, row in zip(found, scores, strict=True):
            np.testing.assert_allclose(prediction.scores, row, atol=1e-4)
            names, values = zip(*_expected(row, 0.6), strict=True)
            assert tuple(name for name, _ in prediction.labels) == names
            np.testing.assert_allclose([v for _, v in prediction.labels], values, atol=1e-4)


def test_top_k_limits_the_labels(photos, scores):
    (found,) = predict(miniature.model(), photos[:1], threshold=0.0, top_k=2)
    assert [name for name, _ in found.labels] == [name for name, _ in _expected(scores[0], 0)[:2]]


def test_the_threshold_applies_to_the_top_k(photos, scores):
    ordered = -np.sort(-scores[0])
    threshold = float(ordered[:2].mean())
    for top_k, number in ((3, 1), (None, 1), (1, 1)):
        (found,) = predict(miniature.model(), photos[:1], threshold=threshold, top_k=top_k)
        assert [score for _, score in found.labels] == pytest.approx(ordered[:number], abs=1e-4)


def test_no_image_gives_no_prediction():
    assert list(predict(miniature.model(), [])) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"threshold": 70}, "threshold must be from 0 to 1, got 70"),
    ],
)
def test_numbers_that_cannot_be_raise_at_once(photos, arguments, message):
    with pytest.raises(ValueError, match=message):
        predict(miniature.model(), photos, **arguments)


def test_output_that_is_a_file_is_refused_first(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "file")]
    assert main([*arguments, photos[0]]) == 1
    assert "is a file, expected a folder" in capsys.readouterr().err


def test_model_without_preprocessing_needs_one(photos):
    model = miniature.model(preprocessing=None)
    with pytest.raises(ValueError, match="how its images are prepared"):
        predict(model, photos)
    (given,) = predict(model, photos[:1], preprocessing=Preprocessing(image_size=32))
    (own,) = predict(miniature.model(), photos[:1])
    np.testing.assert_array_equal(given.scores, own.scores)


def test_command_prints_a_line_an_image(checkpoint, photos, scores, capsys):
    assert main(["--checkpoint", str(checkpoint), *photos]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 0.6 is the recipe's threshold.
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
    model = miniature.model(class_names=None)
    checkpoint = save_model(tmp_path / "model", model, recipe=miniature.recipe())
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


def test_annotated_pictures_never_replace_an_input(checkpoint, tmp_path):
    first = miniature.save_photo(tmp_path / "cat.png", 1)
    second = miniature.save_photo(tmp_path / "more" / "cat.png", 2)
    earlier = miniature.save_photo(tmp_path / "cat-labels.jpg", 3)
    before = {path: path.read_bytes() for path in (first, second, earlier)}
    assert main(["--checkpoint", str(checkpoint), "--output", str(tmp_path), str(tmp_path)]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    made = {path.name for path in tmp_path.glob("*.jpg")} - {"cat-labels.jpg"}
    assert made == {"cat-labels-2.jpg", "cat-labels-3.jpg", "cat-labels-labels.jpg"}


def test_annotated_picture_keeps_the_image_above_the_text():
    image = Image.new("RGB", (300, 260), "navy")
    picture = np.asarray(annotate(image, ["cat 0.98", "dog 0.91"]))
    np.testing.assert_array_equal(picture[:260, :300], np.asarray(image))
    strip = picture[260:]
    assert strip.min() < 50
    assert strip.max() == 255


@pytest.mark.parametrize("size", [(8, 8), (1, 3000), (3000, 1), (40, 30)])
def test_annotated_picture_has_room_for_its_text_and_stays_small(size):
    picture = annotate(Image.new("RGB", size, "navy"), ["a rather long class name 0.98"] * 3)
    columns = np.asarray(picture.convert("L"))[-20:].min(axis=0)
    assert columns[-2:].min() == 255
    assert picture.width * picture.height < 4_000_000


def test_folders_and_globs_stand_for_their_images_once(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp"):
        miniature.save_photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    everything = [str(tmp_path / name) for name in ("a.JPG", "b.png", "deep/c.webp")]
    assert find_images([str(tmp_path)]) == everything
    assert find_images([str(tmp_path / "*.[pJ]*")]) == everything[:2]
    assert find_images([str(tmp_path / "b.png"), str(tmp_path)]) == [
        everything[1],
        everything[0],
        everything[2],
    ]


def test_what_stands_for_no_image_is_kept_to_be_reported(tmp_path):
    nothing = [str(tmp_path / "none*.jpg"), str(tmp_path)]
    assert find_images(nothing) == nothing
