"""Predictions for image files, from Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mljax.config.schema import Preprocessing
from mljax.data.readers.digits import CLASS_NAMES
from mljax.evaluation.predictions import find_images, predict
from tests import networks
from tests.photos import save_photo


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


def test_predictions_are_those_of_the_network_whatever_the_batch_size(photos, scores):
    for batch_size in (2, 32):
        found = list(predict(networks.model(), photos, threshold=0.6, batch_size=batch_size))
        assert [p.path for p in found] == photos
        for prediction, row in zip(found, scores, strict=True):
            np.testing.assert_allclose(prediction.scores, row, atol=1e-4)
            names, values = zip(*_expected(row, 0.6), strict=True)
            assert tuple(name for name, _ in prediction.labels) == names
            np.testing.assert_allclose([v for _, v in prediction.labels], values, atol=1e-4)


def test_top_k_limits_the_labels(photos, scores):
    (found,) = predict(networks.model(), photos[:1], threshold=0.0, top_k=2)
    assert [name for name, _ in found.labels] == [name for name, _ in _expected(scores[0], 0)[:2]]


def test_the_threshold_applies_to_the_top_k(photos, scores):
    ordered = -np.sort(-scores[0])
    threshold = float(ordered[:2].mean())
    for top_k, number in ((3, 1), (None, 1), (1, 1)):
        (found,) = predict(networks.model(), photos[:1], threshold=threshold, top_k=top_k)
        assert [score for _, score in found.labels] == pytest.approx(ordered[:number], abs=1e-4)


def test_no_image_gives_no_prediction():
    assert list(predict(networks.model(), [])) == []


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
        predict(networks.model(), photos, **arguments)


def test_model_without_preprocessing_needs_one(photos):
    model = networks.model(preprocessing=None)
    with pytest.raises(ValueError, match="how its images are prepared"):
        predict(model, photos)
    (given,) = predict(model, photos[:1], preprocessing=Preprocessing(image_size=32))
    (own,) = predict(networks.model(), photos[:1])
    np.testing.assert_array_equal(given.scores, own.scores)


def test_folders_and_globs_stand_for_their_images_once(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp"):
        save_photo(tmp_path / name)
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
