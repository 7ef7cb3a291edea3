"""Word vectors of classes: GloVe's text files, and arrays in numpy's files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mljax.data.files.npy import read_npy, read_npz
from mljax.data.files.text import read_lines
from mljax.data.records import Classes

_EXPECTED = "word vectors, one row for each class"
_UNKNOWN = "<unk>"


def vectors_in_order(path: Path) -> Float[np.ndarray, "k w"] | None:
    """Returns the vectors in the order of the classes: an array in `.npy`, or the one in `.npz`.

    Returns:
      None for a vocabulary, whose vectors are found by words: a text file, or a `.npz` with `words`
      `[n]` and `vectors` `[n, w]`.

    Raises:
      ValueError: for a file that is neither.
    """
    if path.suffix == ".npy":
        return read_npy(path, _EXPECTED)
    if path.suffix != ".npz":
        return None
    arrays = read_npz(path, _EXPECTED)
    if arrays.keys() == {"words", "vectors"}:
        return None
    if len(arrays) != 1:
        raise ValueError(
            f"{path}: holds {', '.join(arrays) or 'nothing'}; expected one array, a row for each "
            "class, or `words` and `vectors`"
        )
    return next(iter(arrays.values()))


def vector_size(path: Path) -> int:
    """Returns the width of a vocabulary's vectors.

    Raises:
      ValueError: for a file without any vector.
    """
    if path.suffix == ".npz":
        return read_npz(path, _EXPECTED)["vectors"].shape[1]
    return _size_of_lines(path)


def vectors_of_classes(path: Path, class_names: Sequence[str]) -> Float[np.ndarray, "k w"]:
    """Returns a vector for each class out of a vocabulary, the mean over the words of its name.

    A name is split on spaces. A word that the vocabulary lacks is looked up in lower case; if it is
    not there either, the vector of `<unk>` stands for it, where there is one. Otherwise the mean is
    over the other words.

    Differs from the reference (tosfaq/deep-object-reid): its routine takes the mean over the
    entries of the vectors too, one number a class; the files that it ships were made otherwise.

    Args:
      path: of a text file with a word and its numbers in each line, as GloVe's, or of a `.npz` with
        `words` and `vectors`.
      class_names: in label order.

    Returns:
      `[k, w]` float32; nan in the row of a class none of whose words is known.

    Raises:
      ValueError: for a file that is not of this form; the message names the line.
    """
    wanted = {
        form for name in class_names for word in name.split() for form in (word, word.lower())
    }
    found, size = _find(path, wanted | {_UNKNOWN})
    missing = found.get(_UNKNOWN)

    def vector(name: str) -> Float[np.ndarray, " w"]:
        vectors = [found.get(word, found.get(word.lower(), missing)) for word in name.split()]
        known = [v for v in vectors if v is not None]
        return np.mean(known, 0) if known else np.full(size, np.nan)

    return np.stack([vector(name) for name in class_names]).astype(np.float32)


def vectors_for(classes: Classes, vocabulary: str | None) -> Float[np.ndarray, "k w"] | None:
    """Returns the vectors that come with the classes, else those in a vocabulary, else None."""
    if classes.vectors is None and vocabulary is not None:
        return vectors_of_classes(Path(vocabulary), classes.names)
    return classes.vectors


def _find(path: Path, words: set[str]) -> tuple[dict[str, np.ndarray], int]:
    """Returns the vectors of those words that the vocabulary has, and their width."""
    if path.suffix == ".npz":
        arrays = read_npz(path, _EXPECTED)
        pairs = zip(arrays["words"].tolist(), arrays["vectors"], strict=True)
        return {word: v for word, v in pairs if word in words}, arrays["vectors"].shape[1]
    size, found = _size_of_lines(path), {}
    for number, line in enumerate(read_lines(path), 1):
        # From the right: some vocabularies have words with spaces.
        word, *numbers = line.rstrip().rsplit(" ", size)
        if word not in words or word in found:
            continue
        try:
            found[word] = np.array(numbers, np.float32)
        except ValueError:
            numbers = []
        if len(numbers) != size:
            raise ValueError(
                f"{path}, line {number}: expected the word {word!r} and {size} numbers"
            ) from None
    return found, size


def _size_of_lines(path: Path) -> int:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected word vectors as text, .npy or .npz")
    # word2vec's text begins with a line of two numbers, how many words of which width.
    sizes = (len(line.split()) - 1 for line in read_lines(path))
    size = next((size for size in sizes if size > 1), None)
    if size is None:
        raise ValueError(f"{path}: no line has a word and its numbers, as `cat 0.1 -0.2 0.3`")
    return size
