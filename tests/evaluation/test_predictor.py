"""Predictions again and again: compiled once; and what else a predictor takes."""

import logging

import jax
import numpy as np
import pytest
from PIL import Image

from mljax.config import Preprocessing
from mljax.evaluation import Predictor, predict
from tests import networks
from tests.photos import save_photo


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [str(save_photo(folder / f"{n}.png", n)) for n in range(9)]


@pytest.fixture
def compiled(caplog):
    """Returns a function that counts the networks that were compiled since it was called last."""
    jax.config.update("jax_log_compiles", True)
    caplog.set_level(logging.WARNING)

    def count():
        found = [r for r in caplog.records if "Compiling jit(outputs)" in r.getMessage()]
        caplog.clear()
        return len(found)

    yield count
    jax.config.update("jax_log_compiles", False)


def _scores(predictions):
    return np.stack([p.scores for p in predictions])


def test_a_second_call_compiles_nothing(photos, compiled):
    model = networks.model(preprocessing=Preprocessing(image_size=40))
    first = _scores(predict(model, photos[:1]))
    assert compiled() == 1
    np.testing.assert_array_equal(_scores(predict(model, photos[:1])), first)
    assert compiled() == 0


def test_another_network_of_the_same_structure_compiles_nothing(photos, compiled):
    size = Preprocessing(image_size=40)
    first, second = (networks.model(preprocessing=size) for _ in range(2))
    second.head.linear.bias[...] += 1
    plain = _scores(predict(first, photos[:1]))
    compiled()
    changed = _scores(predict(second, photos[:1]))
    assert compiled() == 0
    assert (changed > plain).all()


def test_the_weights_of_each_call_are_those_of_the_network(photos):
    model = networks.model()
    before = _scores(predict(model, photos[:1]))
    model.head.linear.bias[...] += 1
    assert (_scores(predict(model, photos[:1])) > before).all()


def test_ragged_batches_compile_nothing_more(photos, compiled):
    predictor = Predictor(networks.model(preprocessing=Preprocessing(image_size=48)), batch_size=4)
    whole = _scores(predictor(photos[:8]))
    assert compiled() == 1
    assert len(_scores(predictor(photos))) == 9
    np.testing.assert_array_equal(_scores(predictor(photos[:3])), whole[:3])
    assert compiled() == 0


def test_a_predictor_gives_what_predict_gives(photos):
    model = networks.model()
    options = {"threshold": 0.6, "top_k": 2}
    found, expected = Predictor(model, **options)(photos), predict(model, photos, **options)
    for one, other in zip(found, expected, strict=True):
        assert (one.path, one.labels) == (other.path, other.labels)


def test_a_predictor_refuses_numbers_that_cannot_be():
    with pytest.raises(ValueError, match="max_pixels must be at least 1, got 0"):
        Predictor(networks.model(), max_pixels=0)


def test_a_large_picture_is_read_if_max_pixels_allows_it(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("RGB", (300, 10)).save(path)
    (refused,) = predict(networks.model(), [path], max_pixels=2999)
    assert "300 x 10 pixels exceed the limit of 2999" in refused.error
    assert "data.max_pixels" in refused.error and "--max-pixels" in refused.error
    (read,) = predict(networks.model(), [path], max_pixels=3000)
    assert read.error is None


def test_images_that_are_not_square_are_height_by_width(photos):
    model = networks.model(preprocessing=Preprocessing(image_size=(32, 64)))
    (found,) = predict(model, photos[:1])
    pixels = np.asarray(Image.open(photos[0]).resize((64, 32), Image.Resampling.BILINEAR))
    logits = jax.jit(lambda x: model(x)["logits"])(pixels[None] / np.float32(255))
    np.testing.assert_allclose(found.scores, jax.nn.sigmoid(logits)[0], atol=1e-4)
