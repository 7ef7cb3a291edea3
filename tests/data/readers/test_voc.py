"""VOC folders: lists, difficult objects, class names, and errors that name the file."""

import numpy as np
import pytest

from mljax.data.readers.voc import VOC_CLASSES, voc


def _objects(*pairs):
    return "".join(
        f"<object><name>{name}</name>{'' if d is None else f'<difficult>{d}</difficult>'}"
        "<part><name>head</name></part></object>"
        for name, d in pairs
    )


def _folder(root, annotations, **lists):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for stem, body in annotations.items():
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{body}</annotation>")
        (root / "JPEGImages" / f"{stem}.jpg").touch()
    for split, text in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    return root


@pytest.fixture
def root(tmp_path):
    annotations = {
        "a": _objects(("dog", 0), ("cat", 1)),
        "b": _objects(("dog", 1), ("dog", 0), ("cat", None)),
        "c": "",
        "d": _objects(("bird", 0)),
    }
    return _folder(tmp_path, annotations, train="b\na\n", val="c\n\n", trainval="a\nb\nc\nd\n")


def test_images_come_in_the_order_of_the_list(root):
    records = voc("train", root=root)
    assert records.images == [str(root / "JPEGImages" / name) for name in ("b.jpg", "a.jpg")]


def test_classes_are_those_of_the_whole_folder_sorted(root):
    for split in ("train", "val", "trainval"):
        assert voc(split, root=root).class_names == ("bird", "cat", "dog")


def test_image_without_objects_is_kept(root):
    assert voc("val", root=root).labels.tolist() == [[0, 0, 0]]


def test_class_is_ignored_where_all_its_objects_are_difficult(root):
    records = voc("train", root=root, class_names=["dog", "cat", "bird"])
    assert records.class_names == ("dog", "cat", "bird")
    assert records.labels.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert records.ignored.tolist() == [[False, False, False], [False, True, False]]


def test_published_classes_are_twenty_in_alphabetical_order(root):
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
    labels = voc("trainval", root=root, class_names=VOC_CLASSES).labels
    assert np.argwhere(labels).tolist() == [[0, 7], [0, 11], [1, 7], [1, 11], [3, 2]]


def test_list_of_one_class_has_a_second_column(root):
    (root / "ImageSets/Main/dog_train.txt").write_text("a  1\nd -1\n")
    assert len(voc("dog_train", root=root)) == 2


def test_image_of_another_kind_is_found_by_the_annotation(root):
    (root / "Annotations/c.xml").write_text("<annotation><filename>x.png</filename></annotation>")
    (root / "JPEGImages/c.jpg").rename(root / "JPEGImages/x.png")
    assert voc("val", root=root).images == [str(root / "JPEGImages" / "x.png")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "ImageSets/Main/train.txt").unlink(), "train.txt: no such file"),
        (lambda root: (root / "ImageSets/Main/train.txt").write_text("a\na\n"), "listed twice"),
        (
            lambda root: (root / "ImageSets/Main/train.txt").write_bytes(b"a\ncaf\xe9\n"),
            "train.txt, line 2: byte 0xe9 is not UTF-8",
        ),
        (lambda root: (root / "ImageSets/Main/train.txt").write_text("\n"), "records are empty"),
        (lambda root: (root / "Annotations/a.xml").unlink(), "a.xml: no such file"),
        (lambda root: (root / "Annotations/a.xml").write_text("<annot"), "a.xml: not an XML file"),
        (
            lambda root: (root / "Annotations/a.xml").write_text(
                "<annotation><object/></annotation>"
            ),
            "a.xml: an object has no name",
        ),
        (lambda root: (root / "JPEGImages/a.jpg").unlink(), "a.xml: there is no image a.jpg in"),
    ],
)
def test_damage_is_named_by_file(root, damage, message):
    damage(root)
    with pytest.raises(ValueError, match=message):
        voc("train", root=root)


def test_unknown_class_is_named_with_its_file(root):
    with pytest.raises(ValueError, match="b.xml: unknown class 'cat'; the classes are dog, bird"):
        voc("train", root=root, class_names=["dog", "bird"])
