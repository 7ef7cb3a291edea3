"""The right picture for each row: stale names, spaces, folders, hidden files, rows twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from mljax.data.readers.chest_xray import chest_xray
from mljax.data.readers.coco import coco
from mljax.data.readers.image_csv import csv_table
from mljax.data.readers.lvis import lvis
from mljax.data.readers.nus_wide_zsl import nus_wide_zsl
from mljax.data.readers.open_images import open_images
from mljax.data.readers.open_images_table import open_images_table
from mljax.data.readers.voc import voc
from mljax.data.readers.voc_csv import voc_csv
from mljax.training.parts import in_training_order
from tests import layouts
from tests.data import odd_folders as odd

CAT, DOG = (f"<annotation>{odd.thing(name)}</annotation>" for name in ("cat", "dog"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc_space_wrong", {"img (1).jpg": [0, 1], "b.jpg": [1, 0]}),
        ("voc_spaces", {"my cat 1.jpg": [1, 0], "my dog 2.jpg": [0, 1]}),
        ("voc_stale_png", {"1.png": [1, 0], "2.jpg": [0, 1]}),
        ("voc_appledouble", {"1.jpg": [1, 0], "2.jpg": [0, 1]}),
        ("voc_difficult_true", {"1.jpg": [0, 1], "2.jpg": [1, 0]}),
        ("coco_subdir", {"1.jpg": [1, 0], "2.jpg": [0, 1]}),
    ],
)
def test_odd_pictures_are_found(name, expected):
    assert odd.rows(odd.read_odd(name)) == expected


@pytest.mark.parametrize(
    ("line", "there", "expected"),
    [
        ("a 1", ["a", "a 1"], "a 1.jpg"),
        ("a 1", ["a"], "a.jpg"),
        ("a b -1", ["a b", "a"], "a b.jpg"),
        ("  a  ", ["a"], "a.jpg"),
        ("img (1)  0", ["img (1)", "img"], "img (1).jpg"),
        ("a\t \r", ["a"], "a.jpg"),
        ("a\t-1\r", ["a"], "a.jpg"),
        ("a ", ["a", "a "], "a .jpg"),
        ("a\u2028b", ["a\u2028b", "a", "b"], "a\u2028b.jpg"),
    ],
)
def test_line_of_a_list_is_a_name_before_it_is_a_name_and_a_label(tmp_path, line, there, expected):
    annotations = dict.fromkeys(there, CAT)
    root = odd.voc(tmp_path, annotations, [f"{name}.jpg" for name in there], [line])
    assert list(odd.rows(voc("train", root=root))) == [expected]


def test_picture_of_a_name_with_a_folder_is_in_that_folder(tmp_path):
    root = odd.voc(tmp_path, {"b": DOG, "sub/b": CAT}, ["b.jpg", "sub/b.jpg"], ["sub/b"])
    assert voc("train", root=root).images == [str(root / "JPEGImages/sub/b.jpg")]
    (root / "JPEGImages/sub/b.jpg").unlink()
    with pytest.raises(ValueError, match="sub/b.xml: there is no image b.jpg in .*JPEGImages/sub"):
        voc("train", root=root)


def test_line_without_annotation_is_named(tmp_path):
    root = odd.voc(tmp_path, {"img": CAT}, ["img.jpg"], ["img", "img (1)"])
    with pytest.raises(ValueError, match=r"img \(1\).xml: no such file, .*train.txt, line 2"):
        voc("train", root=root)


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "png", "PNG", "bmp", "tif", "webp"])
def test_picture_beside_the_stem_comes_before_the_name_in_the_annotation(tmp_path, suffix):
    xml = CAT.replace("<object>", "<filename>other.jpg</filename><object>")
    root = odd.voc(tmp_path, {"a.v1": xml}, [f"a.v1.{suffix}", "a.jpg", "a.v1.txt", "other.jpg"])
    assert list(odd.rows(voc("train", root=root))) == [f"a.v1.{suffix}"]


def test_name_in_the_annotation_decides_between_pictures_of_one_stem(tmp_path):
    xml = CAT.replace("<object>", "<filename>a.png</filename><object>")
    root = odd.voc(tmp_path, {"a": xml, "b": DOG}, ["a.png", "a.bmp", "b.png", "b.bmp"])
    with pytest.raises(ValueError, match="b.xml: there are several pictures .*: b.bmp, b.png"):
        voc("train", root=root)
    (root / "JPEGImages/b.bmp").unlink()
    assert list(odd.rows(voc("train", root=root))) == ["a.png", "b.png"]


def test_annotations_of_one_picture_are_refused(tmp_path):
    xml = CAT.replace("<object>", "<filename>b.jpg</filename><object>")
    root = odd.voc(tmp_path, {"a": xml, "b": DOG}, ["b.jpg"])
    with pytest.raises(
        ValueError, match="Annotations: a.xml and b.xml are the same picture, .*b.jp"
    ):
        voc("train", root=root)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation xmlns='http://x'><object/></annotation>", "root is <{http://x}annotation>"),
        ("<doc><annotation/></doc>", "the root is <doc>"),
        ("<Annotation/>", "the root is <Annotation>"),
        ("<annotation><objects><object/></objects></annotation>", "<objects> stands where none"),
        ("<annotation><Object><name>x</name></Object></annotation>", "<Object> stands where none"),
        ("<annotation><a xmlns='b'><object/></a></annotation>", "<{b}object> stands where none"),
        ("<annotation><item><bndbox/></item></annotation>", "<bndbox> stands where none"),
        (
            f"<annotation><object><name>x</name>{odd.thing('y')}</object></annotation>",
            "<object> stands where none",
        ),
        ("<annotation><object><name> </name></object></annotation>", "an object has no name"),
        (
            "<annotation><object><name>x</name><name>y</name></object></annotation>",
            "an object has the names x, y",
        ),
        ("<annotation><item><name>x</name></item></annotation>", "it has <item> and no <object>"),
        ("<annotation><shapes><label>x</label></shapes></annotation>", "it has <shapes> and no"),
        ("<annotation><name>x</name></annotation>", "it has <name> and no <object>"),
        ("", "not an XML file"),
        ("<annotation>" * 20_000, "not an XML file"),
    ],
)
def test_what_is_no_annotation_is_refused(tmp_path, xml, message):
    root = odd.voc(tmp_path, {"a": xml, "b": DOG}, ["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match=f"a.xml: .*{message}"):
        voc("train", root=root)


def test_annotation_without_objects_is_an_empty_picture(tmp_path):
    xml = (
        "<annotation><folder>x</folder><filename>a.jpg</filename><path>/x</path>"
        "<source><database>x</database></source><owner><name>x</name></owner>"
        "<size><width>1</width></size><segmented>0</segmented></annotation>"
    )
    root = odd.voc(tmp_path, {"a": xml, "b": DOG}, ["a.jpg", "b.jpg"])
    assert odd.rows(voc("train", root=root)) == {"a.jpg": [0], "b.jpg": [1]}


def test_annotation_in_folders_of_objects_is_no_empty_picture():
    with pytest.raises(ValueError, match="1.xml: no VOC annotation: <objects>"):
        odd.read_odd("voc_nested")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(text, True) for text in ("1", "1.0", "true", "True", "TRUE", "yes", " 1 ")]
    + [(text, False) for text in ("0", "0.0", "false", "False", "no", "", " ")],
)
def test_difficult_in_each_spelling(tmp_path, text, expected):
    xml = f"<annotation>{odd.thing('cat', f'<difficult>{text}</difficult>')}</annotation>"
    records = voc("train", root=odd.voc(tmp_path, {"a": xml}, ["a.jpg"]))
    assert records.ignored.tolist() == [[expected]]


@pytest.mark.parametrize(
    "rest",
    [
        "<Difficult>1</Difficult>",
        "<DIFFICULT> TRUE </DIFFICULT>",
        "<attributes><difficult>1</difficult></attributes>",
    ],
)
def test_difficult_in_each_place(tmp_path, rest):
    xml = f"<annotation>{odd.thing('cat', rest)}</annotation>"
    assert voc("train", root=odd.voc(tmp_path, {"a": xml}, ["a.jpg"])).ignored.tolist() == [[True]]
    xml = xml.replace(rest, "").replace("<object>", "<object difficult='1'>")
    assert voc("train", root=odd.voc(tmp_path, {"a": xml}, ["a.jpg"])).ignored.tolist() == [[True]]


def test_difficult_that_is_there_twice_is_refused(tmp_path):
    marks = "<difficult>0</difficult><difficult>1</difficult>"
    root = odd.voc(
        tmp_path, {"a": f"<annotation>{odd.thing('cat', marks)}</annotation>"}, ["a.jpg"]
    )
    with pytest.raises(ValueError, match="a.xml, object 'cat': difficult is there 2 times"):
        voc("train", root=root)


@pytest.mark.parametrize("text", ["2", "-1", "Unspecified", "t", "nan"])
def test_difficult_in_another_spelling_is_refused(tmp_path, text):
    xml = f"<annotation>{odd.thing('cat', f'<difficult>{text}</difficult>')}</annotation>"
    with pytest.raises(ValueError, match=f"a.xml, object 'cat': difficult is '{text}', expected"):
        voc("train", root=odd.voc(tmp_path, {"a": xml}, ["a.jpg"]))


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("train2017/a/1.jpg", "a/1.jpg"),
        ("train2017/1.jpg", "train2017/1.jpg"),
        ("train2017/1.jpg", "./1.jpg"),
        ("images/1.jpg", "images/1.jpg"),
        ("images/1.jpg", "../images/1.jpg"),
        ("images/1.jpg", "{root}/images/1.jpg"),
    ],
)
def test_images_are_found_in_folders_by_prefix_and_by_absolute_path(tmp_path, where, name):
    content = odd.content(files=(name.format(root=tmp_path), "2.jpg"))
    root = odd.coco(tmp_path, content)
    (root / "train2017/1.jpg").unlink()
    odd.touch(root, where)
    found = coco("train", root=root).images[0]
    assert Path(found).samefile(root / where)


@pytest.mark.parametrize("other", ["1.jpg", "./1.jpg", "train2017/1.jpg", "a/../1.jpg"])
def test_one_file_under_two_ids_is_refused(tmp_path, other):
    odd.touch(tmp_path, "train2017/a/x")
    root = odd.coco(tmp_path, odd.content(files=("1.jpg", other)))
    with pytest.raises(ValueError, match="train2017.json: image 1 and image 2 are the same pictur"):
        coco("train", root=root)


def test_one_picture_in_two_rows_is_refused_by_every_reader(tmp_path):
    with pytest.raises(ValueError, match="train2017.json: image 1 and image 2 are the same"):
        odd.read_odd("coco_dupfile")
    root = odd.coco(tmp_path / "lvis", odd.content(files=("1.jpg", "1.jpg")))
    with pytest.raises(ValueError, match="v1_train.json: image 1 and image 2 are the same"):
        lvis("train", root=root)
    for writer, reader, name in (
        (layouts.csv, csv_table, "train.csv"),
        (layouts.chest_xray, chest_xray, "train_label.csv"),
        (layouts.nus_wide_zsl, nus_wide_zsl, "data.csv"),
        (layouts.voc_csv, voc_csv, "files/VOC2007/classification_train.csv"),
    ):
        root = tmp_path / writer.__name__
        writer(root)
        if writer is layouts.voc_csv:
            (root / name.replace("_train", "_trainval")).rename(root / name)
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join([*lines, lines[1]]) + "\n")
        with pytest.raises(ValueError, match=f"{name}.* line"):
            reader("train", root=root)


def test_one_picture_in_two_rows_of_the_redistributed_table_is_refused(tmp_path):
    layouts.open_images(tmp_path / "set")
    rows = ["a.jpg,[/m/01],[],train", "a.jpg,[/m/01],[],val", "a.jpg,[/m/02],[],train"]
    tmp_path = tmp_path / "set"
    (tmp_path / "data.csv").write_text("\n".join(["path,yes,no,split", *rows]) + "\n")
    with pytest.raises(
        ValueError, match="data.csv: the image 'a.jpg' stands in two rows of .*'tra"
    ):
        open_images_table("train", root=tmp_path, missing_images="unchecked")
    assert len(open_images_table("val", root=tmp_path, missing_images="unchecked")) == 1


def test_pattern_that_gives_images_one_path_is_refused(tmp_path):
    layouts.open_images(tmp_path / "set")
    with pytest.raises(ValueError, match="pattern: got '{name\\[0\\]}.jpg'"):
        open_images("train", root=tmp_path / "set", pattern="{name[0]}.jpg")


def test_categories_in_another_order_are_matched_by_name():
    train, val = (odd.read_odd("coco_val_order", split) for split in ("train", "val"))
    assert sorted(train.class_names) == sorted(val.class_names) != list(val.class_names)
    matched = in_training_order(train, val)
    assert matched.class_names == train.class_names
    for row, before in zip(matched.labels, val.labels, strict=True):
        names = {name for name, label in zip(val.class_names, before, strict=True) if label}
        assert names == {n for n, label in zip(train.class_names, row, strict=True) if label}


def test_classes_that_differ_between_splits_are_named(tmp_path):
    train = coco("train", root=odd.coco(tmp_path, odd.content(("cat", "dog"))))
    val = coco("val", root=odd.coco(tmp_path, odd.content(("Cat", "dog")), "val"))
    with pytest.raises(ValueError, match="the training split alone has cat; .* read alone has Cat"):
        in_training_order(train, val)


def test_categories_are_left_out_on_request():
    records = odd.read_odd("coco_roboflow0", exclude=("pets",))
    assert (records.class_names, records.labels.tolist()) == (("cat", "dog"), [[1, 0], [0, 1]])


def test_category_to_leave_out_is_found_in_each_form_of_unicode(tmp_path):
    root = odd.coco(tmp_path, odd.content(("cafe\u0301 ", "dog")))
    assert coco("train", root=root, exclude=("caf\u00e9",)).class_names == ("dog",)
    with pytest.raises(ValueError, match="exclude: the id is True, expected"):
        coco("train", root=root, exclude=(True,))


def test_category_is_left_out_by_its_number_where_another_has_its_name(tmp_path):
    content = odd.content(("cat", "dog"))
    content["categories"].insert(0, {"id": 0, "name": "cat"})
    root = odd.coco(tmp_path, content)
    with pytest.raises(ValueError, match="class names occur twice: cat"):
        coco("train", root=root)
    assert coco("train", root=root, exclude=(0,)).class_names == ("cat", "dog")


def test_objects_of_a_category_that_is_left_out_are_left_out(tmp_path):
    root = odd.coco(tmp_path, odd.content())
    assert odd.rows(coco("train", root=root, exclude=("cat",))) == {"2.jpg": [1]}
    kept = coco("train", root=root, exclude=("cat",), keep_unannotated=True)
    assert odd.rows(kept) == {"1.jpg": [0], "2.jpg": [1]}


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (("root",), "has no category 'root'; the categories are cat, dog"),
        ("cat", "got the text 'cat'"),
        (("cat", "dog"), "there is no class"),
    ],
)
def test_category_to_leave_out_that_is_not_there_is_named(tmp_path, exclude, message):
    with pytest.raises(ValueError, match=message):
        coco("train", root=odd.coco(tmp_path, odd.content()), exclude=exclude)


@pytest.mark.parametrize(
    ("name", "reader", "missing", "there"),
    [
        ("csv", csv_table, "dev", "test, train, val"),
        ("coco", coco, "dev", "train, val"),
        ("voc", voc, "dev", "test, trainval"),
        ("voc_csv", voc_csv, "dev", "test, trainval"),
        ("chest_xray", chest_xray, "dev", "test, train, val"),
        ("open_images", open_images, "dev", "test, train, validation"),
    ],
)
def test_missing_list_names_the_split_and_the_lists_that_are_there(
    tmp_path, name, reader, missing, there
):
    root = tmp_path / name
    layouts.WRITERS[name](root)
    for path in [*root.rglob("*.csv"), *root.rglob("*.txt"), *root.rglob("*.json")]:
        (path.parent / f"._{path.name}").touch()
    with pytest.raises(ValueError, match=f"got split='dev', there are lists of {there}$"):
        reader(missing, root=root)


def test_missing_list_where_there_is_none_says_so(tmp_path):
    (tmp_path / "lvis_v1_val.json").write_text(json.dumps(odd.content()))
    with pytest.raises(ValueError, match="got split='train', there are lists of val"):
        lvis("train", root=tmp_path)
    with pytest.raises(ValueError, match="got split='train', there is no list at all"):
        lvis("train", root=tmp_path / "none")


def test_lists_of_the_devkit_may_name_pictures_with_spaces(tmp_path):
    folder = tmp_path / "VOCdevkit/VOC2007"
    odd.touch(folder, "JPEGImages/my cat 1.jpg")
    odd.write(folder / "ImageSets/Main/cat_train.txt", "my cat 1  1\n")
    records = voc_csv("train", root=tmp_path, class_names=["cat"])
    assert odd.rows(records) == {"my cat 1.jpg": [1]}
    np.testing.assert_array_equal(records.ignored, [[False]])


def test_folders_may_be_written_as_in_windows(tmp_path):
    odd.touch(tmp_path / "coco", "train2017/sub/1.jpg", "train2017/sub/2.jpg")
    text = json.dumps(odd.content(files=("sub\\1.jpg", "sub\\2.jpg")))
    odd.write(tmp_path / "coco" / "annotations" / "instances_train2017.json", text)
    odd.touch(tmp_path / "csv", "sub/1.jpg", "sub/2.jpg")
    odd.write(tmp_path / "csv" / "train.csv", "image,cat,dog\nsub\\1.jpg,1,0\nsub\\2.jpg,0,1\n")
    for records in (
        coco("train", root=tmp_path / "coco"),
        csv_table("train", root=tmp_path / "csv"),
    ):
        assert odd.rows(records) == {"1.jpg": [1, 0], "2.jpg": [0, 1]}


def test_one_picture_by_two_spellings_is_refused(tmp_path):
    odd.touch(tmp_path, "sub/1.jpg")
    odd.write(tmp_path / "train.csv", "image,cat,dog\nsub\\1.jpg,1,0\nsub/1.jpg,0,1\n")
    with pytest.raises(ValueError, match="line 3: sub/1.jpg is already in line 2"):
        csv_table("train", root=tmp_path)
