"""Records refuse what does not fit together."""

import numpy as np
import pytest

from mljax.data.records import Records

PATHS = ["a.jpg", "b.jpg"]
LABELS = np.array([[1, 0], [0, -1]], np.int8)


def _records(**changes):
    return Records(**{"images": PATHS, "labels": LABELS, "class_names": ("x", "y")} | changes)


def test_records_describe_their_classes():
    vectors = np.ones((2, 5), np.float32)
    classes = _records(class_vectors=vectors).classes
    assert classes.names == ("x", "y")
    assert classes.vectors is vectors
    assert classes.labels is LABELS
    assert _records().classes.vectors is None


def test_records_have_a_length_and_name_their_images():
    assert len(_records()) == 2
    assert _records().name(1) == "b.jpg"
    assert _records(images=np.zeros((2, 4, 4, 3), np.uint8)).name(1) == "image 1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": PATHS[:1]}, "one row per image"),
        ({"ignored": np.zeros((1, 2), bool)}, "one row per image"),
        (
            {"images": [], "labels": LABELS[:0]},
            "records are empty: .* look at its `split` and `root`",
        ),
        ({"class_names": ("x",)}, "labels have 2 columns for 1 class names"),
        ({"class_names": ("x", "x")}, "class names occur twice: x"),
        ({"ignored": np.zeros((2, 3), bool)}, r"ignored: got shape \(2, 3\), expected \(2, 2\)"),
        (
            {"class_vectors": np.zeros((3, 5))},
            r"class_vectors: got shape \(3, 5\), expected \(2, w",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _records(**changes)
