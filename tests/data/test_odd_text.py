"""Files in other encodings and damaged files: read, or refused with the file and the place."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mljax.data.files.text import read_json, read_utf8, read_xml
from mljax.data.readers.coco import coco
from mljax.data.readers.image_csv import csv_table
from mljax.data.readers.lvis import lvis
from mljax.data.readers.open_images import class_names_of, open_images
from mljax.data.readers.voc import voc
from mljax.trackers.class_prior import read_prior, write_prior
from tests import layouts
from tests.data import odd_folders as odd

XML = (
    "<?xml version='1.0' encoding='{}'?>\n<annotation><object><name>{}</name></object></annotation>"
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "coco_latin1",
            "instances_train2017.json, line 1: byte 0xe9 is not UTF-8 .after .* \"caf'",
        ),
        ("lvis_latin1", "lvis_v1_train.json, line 1: byte 0xe9 is not UTF-8"),
        ("open_images_bad_header_latin", "human-imagelabels.csv, line 1: byte 0xe9 is not UTF-8"),
        ("open_images_conf_latin", "human-imagelabels.csv, line 2: byte 0xe9 is not UTF-8"),
        ("voc_unknown_encoding", "1.xml: Python knows no encoding 'utf8mb4'"),
    ],
)
def test_odd_encodings_are_named_with_the_file(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        odd.read_odd(name)
    assert caught.type is ValueError


def test_chinese_encoding_is_read():
    assert odd.read_odd("voc_gb2312").class_names == ("dog", "\u732b")


@pytest.mark.parametrize(
    "encoding", ["gb2312", "latin-1", "utf-8", "utf-16", "shift_jis", "koi8-r"]
)
def test_annotations_are_read_in_each_encoding_they_declare(tmp_path, encoding):
    name = {"gb2312": "\u732b", "shift_jis": "\u732b", "koi8-r": "\u043a"}.get(encoding, "\xe9")
    path = odd.write(tmp_path / "a.xml", XML.format(encoding, name).encode(encoding))
    assert read_xml(path).findtext("object/name") == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (XML.format("gb2312", "x").encode() + b"\xff\xff", "line 2: byte 0xff is not gb2312"),
        (XML.format("rot13", "x").encode(), "Python knows no encoding 'rot13'"),
        (XML.format("undefined", "x").encode(), "not in the encoding undefined"),
        (
            XML.format("idna", "x\udc80").encode("utf-8", "surrogateescape"),
            "line 2: .* is not idna",
        ),
        (b"<a>\xe9</a>", "line 1: byte 0xe9 is not UTF-8"),
        (b"<a>&bomb;</a>", "not an XML file"),
        (b"\0" * 10, "not an XML file"),
    ],
)
def test_annotations_in_no_encoding_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"a.xml.*{message}") as caught:
        read_xml(odd.write(tmp_path / "a.xml", content))
    assert caught.type is ValueError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"id": 1,\n "id": 2}', "the name 'id' occurs twice"),
        ("[1,\n2", "not a JSON file .*line 2 column 2"),
        ("", "not a JSON file"),
        ("9" * 5000, "not a JSON file"),
        ('{"a": 1}'.encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "line 1: byte 0x00 is not text"),
        ('{"a": 1,\n"b": "\xe9"}'.encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
    ],
)
def test_json_that_is_damaged_is_named_with_its_place(tmp_path, content, message):
    path = odd.write(tmp_path / "a.json", content)
    with pytest.raises(ValueError, match=f"a.json.*{message}") as caught:
        read_json(path)
    assert caught.type is ValueError
    for reader in (coco, lvis):
        root = odd.coco(tmp_path, path.read_bytes())
        with pytest.raises(ValueError, match=f"_train(2017)?.json.*{message}"):
            reader("train", root=root)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_is_left_out_by_each_reader(tmp_path, mark):
    assert read_json(odd.write(tmp_path / "a.json", mark + '{"a": 1}')) == {"a": 1}
    assert read_utf8(odd.write(tmp_path / "a.txt", mark + "a\r\nb")) == "a\r\nb"
    prior = odd.write(tmp_path / "prior.csv", mark + "Classes,avg_pred\ncaf\xe9,0.5\n")
    assert read_prior(prior, ["caf\xe9"]).tolist() == [0.5]
    names = odd.write(tmp_path / "names.csv", mark + "LabelName,DisplayName\n/m/a,Caf\xe9\n")
    assert class_names_of(names) == {"/m/a": "Caf\xe9"}
    root = odd.voc(tmp_path, {"1": mark + XML.format("utf-8", "x")}, ["1.jpg"], [mark + "1"])
    assert voc("train", root=root).class_names == ("x",)
    assert csv_table("train", root=odd.csv(tmp_path, mark + "image,x\n1.jpg,1\n")).class_names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Classes,avg_pred\ncaf\xe9,0.5\n", "line 2: byte 0xe9 is not UTF-8"),
        (b"Classes;avg_pred\ncat;0.5\n", "line 1: .* its cells are separated by ';'"),
        (b'Classes,avg_pred\n"cat,0.5\n', "line 2: a quote is not closed"),
        (b"Classes,avg_pred\n\ncat,x\n", "line 3: expected a class and a number"),
    ],
)
def test_prior_that_is_damaged_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"prior.csv, {message}"):
        read_prior(odd.write(tmp_path / "prior.csv", content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("oidv6-class-descriptions.csv", b"/m/01,\xe9\n", "line 1: byte 0xe9"),
        ("oidv6-class-descriptions.csv", b"/m/01;x\n", "line 1: .* separated by ';'"),
        ("oidv6-class-descriptions.csv", b"/m/01, \n", "line 1: class name 0 is blank"),
        ("oidv6-class-descriptions.csv", b"", "there is no class in it"),
        ("oidv6-classes-trainable.txt", b"/m/01\n/m/\xe9\n", "line 2: byte 0xe9"),
        ("ids.csv", b"ImageID\n\xe9\n", "line 2: byte 0xe9"),
        ("ids.csv", b"ImageID;Rotation\na;0\n", "line 1: .* separated by ';'"),
        (
            "oidv6-train-annotations-human-imagelabels.csv",
            b"ImageID;LabelName;Confidence\na;b;1\n",
            "line 1: .* separated by ';'",
        ),
        (
            "oidv6-train-annotations-human-imagelabels.csv",
            b"ImageID,LabelName,Confidence\na,/m/01,1\nb\0,/m/01,1\n",
            "line 3: byte 0x00 is not UTF-8",
        ),
        (
            "oidv6-train-annotations-human-imagelabels.csv",
            b"ImageID,LabelName,Confidence\na,/m/01,1\n,/m/01,1\n",
            "line 3: there is no ImageID",
        ),
    ],
)
def test_files_of_open_images_are_named_with_the_line(tmp_path, name, content, message):
    root = tmp_path / "set"
    layouts.open_images(root)
    odd.write(root / "ids.csv", "ImageID\n0000000000000001\n")
    odd.write(root / name, content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        open_images("train", root=root, image_ids="ids.csv")


CODE = """
import sys
from mljax.data.readers.image_csv import csv_table
from mljax.trackers.class_prior import read_prior, write_prior
from pathlib import Path
root = Path(sys.argv[1])
records = csv_table("train", root=sys.argv[2])
write_prior(root / "prior.csv", records.class_names, records.labels.mean(0))
read_prior(root / "prior.csv", records.class_names)
print(ascii(records.class_names))
"""


def test_files_are_utf8_whatever_the_locale(tmp_path):
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "JAX_PLATFORMS": "cpu"}
    folder = Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), str(odd.ODD / "csv_cjk_names")],
        env=os.environ | locale,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == r"('\u732b', 'Ru\xdf')"
    assert "\u732b" in (tmp_path / "prior.csv").read_text("utf-8")


def test_files_are_written_as_utf8(tmp_path):
    write_prior(tmp_path / "prior.csv", ["\u732b"], np.array([0.5]))
    assert "\u732b" in (tmp_path / "prior.csv").read_bytes().decode("utf-8")


def _names_an_encoding(call):
    given = {word.arg for word in call.keywords}
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if call.func.attr == "open":
        owner = getattr(call.func.value, "id", "")
        return owner in ("os", "Image") or any("b" in mode for mode in modes) or "encoding" in given
    number = {"read_text": 1, "write_text": 2}.get(call.func.attr, 0)
    return len(call.args) >= number or "encoding" in given


def test_every_text_file_is_opened_with_its_encoding():
    for path in Path(__file__).parents[2].glob("mljax/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert _names_an_encoding(node), f"{path}, line {node.lineno}"
            assert getattr(getattr(node, "func", None), "id", "") != "open" or any(
                word.arg == "encoding" for word in node.keywords
            ), f"{path}, line {node.lineno}"
