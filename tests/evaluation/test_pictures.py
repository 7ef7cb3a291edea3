"""Photos with their labels, and figures."""

import sys

import numpy as np
import pytest
from PIL import Image

from mljax.evaluation.pictures import annotate, make_figure


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


def test_a_figure_has_its_size_in_inches():
    assert make_figure((3.0, 2.0)).get_size_inches().tolist() == [3.0, 2.0]


def test_a_figure_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'mljax\[plot\]'"):
        make_figure((3.0, 2.0))
