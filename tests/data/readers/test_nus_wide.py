"""NUS-WIDE in the files of its release."""

import shutil

import pytest

from mljax.data.readers.nus_wide import nus_wide
from tests import layouts
from tests.data.odd_folders import rows

LIST = "ImageList/TestImagelist.txt"
LABELS = "Groundtruth/TrainTestLabels/Labels_animal_Test.txt"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("nus") / "wide"
    layouts.nus_wide(root)
    return root


@pytest.fixture
def copied(written, tmp_path):
    """Returns a copy that a test may spoil."""
    return shutil.copytree(written, tmp_path / "wide")


def test_images_have_the_concepts_of_their_lines(written):
    records = nus_wide("test", root=written)
    assert records.class_names == ("airport", "animal", "beach")
    # Every fourth image has none.
    assert rows(records) == {
        f"{i}.jpg": [int(i % 4 == c) for c in range(3)] for i in range(12) if i % 4 < 3
    }
    assert records.images[1] == str(written / "Flickr/actor/1.jpg")


def test_images_without_concept_are_kept_on_request(written):
    records = nus_wide("train", root=written, keep_unlabeled=True)
    assert len(records) == 12
    assert records.labels[3].tolist() == [0, 0, 0]


def test_without_the_list_of_concepts_they_are_those_of_the_files(copied):
    shutil.rmtree(copied / "ConceptsList")
    assert nus_wide("test", root=copied).class_names == ("airport", "animal", "beach")


def test_concepts_are_sorted(copied):
    path = copied / "ConceptsList/Concepts81.txt"
    path.write_text("beach\r\nanimal\r\n\r\n")
    assert nus_wide("test", root=copied).class_names == ("animal", "beach")


def test_missing_images_are_counted_or_skipped(copied):
    (copied / "Flickr/actor/1.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 9 images are missing, such as .*actor/1.jpg"):
        nus_wide("test", root=copied)
    assert len(nus_wide("test", root=copied, missing_images="skip")) == 8
    shutil.rmtree(copied / "Flickr")
    with pytest.raises(ValueError, match=r"Flickr: there is none of the 9 images of the split"):
        nus_wide("test", root=copied, missing_images="skip")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (LABELS, "1\n0\n", r"_animal_Test.txt: got 2 lines, expected 12"),
        (LABELS, "1\n" * 11 + "2\n", r"_animal_Test.txt, line 12: got '2', expected 1 or 0"),
        (LABELS, "1\n\n" + "1\n" * 11, r"_animal_Test.txt, line 2: got '', expected 1 or 0"),
        (LIST, "actor\\1.jpg\n" * 12, "line 1 and line 2 are the same picture"),
        ("ConceptsList/Concepts81.txt", "lake\n", "Labels_lake_Test.txt: no such file"),
        ("ConceptsList/Concepts81.txt", "\n", "Concepts81.txt: there is no class"),
    ],
)
def test_malformed_files_are_named(copied, name, text, message):
    (copied / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        nus_wide("test", root=copied)


def test_a_split_that_is_not_there_is_named_with_those_that_are(written):
    with pytest.raises(ValueError, match="got split='Val', there are lists of Test, Train"):
        nus_wide("val", root=written)
