"""Class names and ids as files have them: read as what they are, or refused by file and entry."""

import json

import numpy as np
import pytest

from mljax.data.files.names import check_class_names
from mljax.data.readers.coco import coco
from mljax.data.readers.image_csv import csv_table
from mljax.data.readers.lvis import lvis
from mljax.data.readers.nus_wide_zsl import nus_wide_zsl
from mljax.data.readers.voc import voc
from mljax.data.records import Records
from tests import layouts
from tests.data import odd_folders as odd

NFD, NFC = "cafe\u0301", "caf\u00e9"


@pytest.mark.parametrize(
    "name", ["coco_bigint", "coco_string_cat", "coco_string_ids", "coco_uuid_ids"]
)
def test_ids_of_text_and_of_any_size_are_ids(name):
    assert odd.rows(odd.read_odd(name)) == {"1.jpg": [1, 0], "2.jpg": [0, 1]}


@pytest.mark.parametrize("reader", [coco, lvis])
@pytest.mark.parametrize(
    "ids", [(2**70, "b"), (-1, 0), (1.0, 2), ("3f2504e0-4f89", "x y"), ("01", "1")]
)
def test_ids_join_images_and_annotations(tmp_path, reader, ids):
    root = odd.coco(tmp_path, odd.content(image_ids=ids, category_ids=ids[::-1]))
    labels = odd.rows(reader("train", root=root))
    assert [labels["1.jpg"][0], labels["2.jpg"][1]] == [1, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco_list_id", r"train2017.json: annotations\[0\]: the id is \[1\]"),
        ("lvis_listcat", r"train.json: annotations\[0\]: the id is \[1\]"),
        ("coco_mixed", "train2017.json: images: the id 1 occurs as text and as number"),
    ],
)
def test_ids_that_are_none_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        odd.read_odd(name)


@pytest.mark.parametrize("reader", [coco, lvis])
@pytest.mark.parametrize("field", ["image_ids", "category_ids"])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("1", 1), "the id 1 occurs as text and as number"),
        ((1, 1.5), "the id is 1.5"),
        ((1, True), "the id is True"),
        ((1, 1.0), "the id 1 occurs twice"),
        ((1, None), "the id is None"),
        ((1, " "), "the id is ' '"),
        ((1, []), r"the id is \[\]"),
        ((1, {}), "the id is {}"),
        ((1, float("nan")), "the id is nan"),
    ],
)
def test_ids_that_could_be_mistaken_are_refused(tmp_path, reader, field, ids, message):
    root = odd.coco(tmp_path, odd.content(**{field: ids}))
    with pytest.raises(ValueError, match=rf"train(2017)?.json: (images|categories).*: {message}"):
        reader("train", root=root)


@pytest.mark.parametrize("reader", [coco, lvis])
def test_annotation_whose_id_is_of_another_type_is_refused(tmp_path, reader):
    content = odd.content() | {"annotations": [{"image_id": "1", "category_id": 1}]}
    with pytest.raises(ValueError, match="json: an annotation names image '1' and category 1, whi"):
        reader("train", root=odd.coco(tmp_path, content))


@pytest.mark.parametrize("value", [{}, "", None, {"1": 2}, 3])
def test_absent_categories_that_are_no_list_are_refused(tmp_path, value):
    content = odd.content()
    content["images"][1]["neg_category_ids"] = value
    with pytest.raises(ValueError, match="train.json: image 2: neg_category_ids is"):
        lvis("train", root=odd.coco(tmp_path, content))


@pytest.mark.parametrize("name", ["coco_number_names", "lvis_intname"])
def test_names_that_are_numbers_are_refused(name):
    with pytest.raises(ValueError, match=r"json: categories: class name 0 is .*such as '"):
        odd.read_odd(name)


BAD_NAMES = [
    ((1, "a"), "class name 0 is 1 .int."),
    (("a", None), "class name 1 is None"),
    (("a", 1.5), "class name 1 is 1.5"),
    (("a", True), "class name 1 is True"),
    (("a", ["b"]), r"class name 1 is \['b'\]"),
    (("a", ""), "class name 1 is blank"),
    (("a", " \u200b"), "class name 1 is blank"),
    (("a", "\ud800b"), "class name 1 is .* no text"),
    (("a", "b\0"), "class name 1 is .* no text"),
    (("a", "b\nc"), "class name 1 is .* no text"),
    (("a", "a"), "class names occur twice: a"),
    (("a", " a"), "class names occur twice: a"),
    ((NFC, NFD), f"class names occur twice: {NFC}"),
    (("a", "\ufeffa"), "class names occur twice: a"),
    (("a", "a\u200b "), "class names occur twice: a"),
]


@pytest.mark.parametrize("reader", [coco, lvis])
@pytest.mark.parametrize(("names", "message"), BAD_NAMES)
def test_names_that_are_none_are_refused_with_the_file(tmp_path, reader, names, message):
    root = odd.coco(tmp_path, odd.content(names))
    with pytest.raises(ValueError, match=f"json: categories: {message}"):
        reader("train", root=root)


@pytest.mark.parametrize(("names", "message"), BAD_NAMES)
def test_one_check_refuses_names_that_are_none(names, message):
    with pytest.raises(ValueError, match=f"^here: {message}"):
        check_class_names(names, "here")


@pytest.mark.parametrize(("names", "message"), [*BAD_NAMES[5:], ((), "there is no class")])
def test_records_of_any_reader_check_their_names(names, message):
    labels = np.zeros((1, len(names)), np.int8)
    with pytest.raises(ValueError, match=message):
        Records(images=["a.jpg"], labels=labels, class_names=names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", ""], "image 1: the file name is ''"),
        (["a.jpg", "b\0.jpg"], "image 1: no file here can have the name"),
    ],
)
def test_records_of_any_reader_check_their_pictures(names, message):
    with pytest.raises(ValueError, match=message):
        Records(images=names, labels=np.zeros((2, 1), np.int8), class_names=("x",))


@pytest.mark.parametrize("name", [3, None, ["1.jpg"], {}, "", "a\0b", "\ud800"])
def test_file_names_that_are_none_are_refused(tmp_path, name):
    content = odd.content()
    content["images"][1] |= {"file_name": name, "coco_url": name}
    root = odd.coco(tmp_path, content)
    for reader in (coco, lvis):
        with pytest.raises(ValueError, match=r"train(2017)?.json: .*image 2.* name"):
            reader("train", root=root)


def test_names_are_kept_in_one_form_of_unicode(tmp_path):
    root = odd.csv(tmp_path, f"image,{NFD},dog\n1.jpg,1,0\n")
    odd.csv(tmp_path, f"image,dog,{NFC}\n1.jpg,0,1\n", "val")
    for split in ("train", "val"):
        records = csv_table(split, root=root)
        assert (records.class_names, records.labels.tolist()) == ((NFC, "dog"), [[1, 0]])
    assert coco("train", root=odd.coco(tmp_path, odd.content((NFD, "dog")))).class_names[0] == NFC


def test_names_are_the_same_in_both_forms_of_unicode_in_annotations_and_options(tmp_path):
    root = odd.voc(tmp_path, {"1": f"<annotation>{odd.thing(NFD)}</annotation>"}, ["1.jpg"])
    records = voc("train", root=root, class_names=[NFC])
    assert (records.class_names, records.labels.tolist()) == ((NFC,), [[1]])


def test_columns_that_are_one_name_in_unicode_are_refused(tmp_path):
    root = odd.csv(tmp_path, f"image,{NFC},{NFD}\n1.jpg,0,1\n")
    with pytest.raises(ValueError, match="train.csv, line 1: a column occurs twice"):
        csv_table("train", root=root)


@pytest.mark.parametrize("names", ["cat", [1], [None], ["a", "a"], []])
@pytest.mark.parametrize("reader", [csv_table, voc])
def test_given_class_names_are_checked_too(tmp_path, reader, names):
    odd.csv(tmp_path, "image,labels\n1.jpg,cat\n")
    odd.voc(tmp_path, {"1": f"<annotation>{odd.thing('cat')}</annotation>"}, ["1.jpg"])
    # The type check of the tests would come first.
    reader = getattr(reader, "__wrapped__", reader)
    with pytest.raises(ValueError, match="^class_names: "):
        reader("train", root=tmp_path, class_names=names)


def test_class_that_is_misspelled_in_a_class_set_is_named(tmp_path):
    layouts.nus_wide_zsl(tmp_path)
    sets = {"train class": ["bird", "cat", "dgo"], "test class": ["fox", "owl"]}
    (tmp_path / "benchmark_81_v0.json").write_text(json.dumps(sets))
    with pytest.raises(ValueError, match="v0.json: the class 'dgo' is none of .* which has 'dog'"):
        nus_wide_zsl("train", root=tmp_path)


@pytest.mark.parametrize("sets", [{"test class": "fox"}, {"test class": [1]}, {"test class": {}}])
def test_class_sets_that_are_no_lists_of_text_are_refused(tmp_path, sets):
    layouts.nus_wide_zsl(tmp_path)
    (tmp_path / "benchmark_81_v0.json").write_text(json.dumps(sets))
    with pytest.raises(ValueError, match="v0.json: expected the lists"):
        nus_wide_zsl("train", root=tmp_path)


def test_subset_of_ids_of_text_is_read(tmp_path):
    root = odd.coco(tmp_path, odd.content(image_ids=("a b", "7")))
    ids = odd.write(tmp_path / "ids.txt", "\ufeff7\na b\n")
    assert list(odd.rows(coco("train", root=root, image_ids=ids))) == ["2.jpg", "1.jpg"]
