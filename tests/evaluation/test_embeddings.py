"""Principal axes, neighbors, and the pictures of embeddings."""

import numpy as np
import pytest
from PIL import Image

from mljax.evaluation.embedding_pictures import contact_sheet, plot_by_label, plot_each_label
from mljax.evaluation.embeddings import nearest, principal_axes

VECTORS = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)


def test_principal_axes_are_those_of_the_singular_values():
    points, shares = principal_axes(VECTORS)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    expected = left[:, :2] * values[:2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(shares, values[:2] ** 2 / (values**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(principal_axes(3 * VECTORS)[0], points, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5), (4, 1)])
def test_one_image_and_one_number_have_points_as_well(shape):
    points, shares = principal_axes(np.ones(shape, np.float32))
    np.testing.assert_array_equal(points, np.zeros((shape[0], 2)))
    np.testing.assert_array_equal(shares, 0)


def test_nearest_has_the_largest_cosines_first():
    order, cosines = nearest(VECTORS, 2 * VECTORS[4], 3)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[4]))[:3]
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_allclose(cosines, (unit @ unit[4])[expected], rtol=1e-5)
    assert order[0] == 4
    assert len(nearest(VECTORS, VECTORS[0], 100)[0]) == 30


def test_more_classes_than_colors_become_grey(tmp_path):
    points, shares = principal_axes(VECTORS)
    names = [f"$class {c}$" for c in range(30)]
    plot_by_label(points, shares, np.arange(30), names, "thirty", tmp_path / "a.png")
    plot_by_label(points, shares, np.full(30, -1), names, "none", tmp_path / "b.png")
    plot_each_label(points, shares, np.eye(30)[:, :7] - 1, names, "none", tmp_path / "c.png")
    plot_each_label(points, shares, np.eye(30)[:, :7], names, "seven", tmp_path / "d.png")
    colors = [_colors(tmp_path / f"{name}.png") for name in "abcd"]
    assert colors[0] == 18
    assert colors[1] == colors[2] == 0
    assert colors[3] == 7


def _colors(path):
    """Returns how many colors that are not grey fill more than 20 pixels."""
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(2**24)
    return sum(count > 20 and max(color) - min(color) > 30 for count, color in found)


def test_a_contact_sheet_has_a_row_for_each_image_and_cuts_long_names():
    red, wide = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (900, 20), "blue")
    sheet = contact_sheet([[(red, ["a", "b"]), (wide, ["long" * 40])], [(red, [])]])
    alone = contact_sheet([[(red, ["a", "b"]), (wide, [""])]])
    assert sheet.width == alone.width
    assert sheet.height == 2 * alone.height
    pixels = np.asarray(sheet).astype(int)
    assert ((pixels == [255, 0, 0]).all(2).sum()) == 2 * 144 * 144
    # Text is dark; none reaches the right edge.
    assert (pixels[:, -6:].min() == 255).all()
