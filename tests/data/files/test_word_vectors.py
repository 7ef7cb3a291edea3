"""Word vectors of classes out of vocabularies and arrays."""

from pathlib import Path

import numpy as np
import pytest

from mljax.data.files.word_vectors import vector_size, vectors_in_order, vectors_of_classes

WORDS = {"sea": [0, 2, 4], "lion": [2, 0, 0], "cat": [1, 5, 9]}
NAMES = ("Cat", "sea lion", "sea horse", "zebra")
KNOWN = [[1, 5, 9], [1, 1, 2], [0, 2, 4], [np.nan] * 3]


def _text(path, words=WORDS, first=""):
    lines = [f"{word} {' '.join(map(str, v))}\n" for word, v in words.items()]
    path.write_text(first + "".join(lines))
    return path


@pytest.mark.parametrize("first", ["", "3 3\n"], ids=["glove", "word2vec"])
def test_a_class_has_the_mean_of_its_words(tmp_path, first):
    path = _text(tmp_path / "glove.txt", first=first)
    assert vectors_in_order(path) is None
    assert vector_size(path) == 3
    found = vectors_of_classes(path, NAMES)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, KNOWN)


def test_an_archive_may_hold_the_vocabulary(tmp_path):
    path = tmp_path / "glove.npz"
    np.savez(path, words=list(WORDS), vectors=list(WORDS.values()))
    assert vectors_in_order(path) is None
    assert vector_size(path) == 3
    np.testing.assert_array_equal(vectors_of_classes(path, NAMES), KNOWN)


def test_the_vector_of_unknown_words_stands_for_them(tmp_path):
    path = _text(tmp_path / "glove.txt", WORDS | {"<unk>": [4, 4, 4]})
    found = vectors_of_classes(path, NAMES)
    np.testing.assert_array_equal(found[2:], [[2, 3, 4], [4, 4, 4]])


def test_a_word_may_hold_spaces(tmp_path):
    path = _text(tmp_path / "glove.txt", {"at home": [7, 7, 7], **WORDS})
    path.write_text("cat 1 5 9\n" + path.read_text())
    np.testing.assert_array_equal(vectors_of_classes(path, ("cat",)), [[1, 5, 9]])


def test_arrays_are_in_the_order_of_the_classes(tmp_path):
    vectors = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "v.npy", vectors)
    np.savez(tmp_path / "v.npz", vectors)
    for name in ("v.npy", "v.npz"):
        np.testing.assert_array_equal(vectors_in_order(tmp_path / name), vectors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cat 1 2\ndog 1\n", "line 2: expected the word 'dog' and 2 numbers"),
        ("cat 1 2\ndog 1 x\n", "line 2: expected the word 'dog' and 2 numbers"),
        ("", "no line has a word and its numbers"),
    ],
)
def test_a_line_that_is_no_vector_is_named(tmp_path, content, message):
    path = Path(tmp_path / "glove.txt")
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        vectors_of_classes(path, ("dog",))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        vector_size(tmp_path / "glove.txt")
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    with pytest.raises(ValueError, match="holds a, b; expected one array"):
        vectors_in_order(tmp_path / "two.npz")
    (tmp_path / "no.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not arrays saved by numpy.savez"):
        vectors_in_order(tmp_path / "no.npz")
    np.savez(tmp_path / "objects.npz", np.array([{}], object))
    with pytest.raises(ValueError, match="not arrays saved by numpy.savez"):
        vectors_in_order(tmp_path / "objects.npz")
