"""Label lists in CSV cells: read as what they are, or refused by line and separator."""

import numpy as np
import pytest

from mljax.data.readers.image_csv import csv_table
from tests.data import odd_folders as odd


def _read(root, *cells, **options):
    quoted = [cell.replace('"', '""') for cell in cells]
    lines = [f'{number}.jpg,"{cell}"\n' for number, cell in enumerate(quoted, 1)]
    return csv_table("train", root=odd.csv(root, "image,labels\n" + "".join(lines)), **options)


@pytest.mark.parametrize("name", ["csv_list_comma", "csv_list_comma_space", "csv_list_json"])
def test_odd_lists_are_split(name):
    records = odd.read_odd(name)
    assert records.class_names == ("cat", "dog")
    assert records.labels[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    "cells",
    [
        ("cat dog", "cat"),
        ("cat,dog", "cat"),
        ("cat, dog", "cat,"),
        ("cat;dog", "cat"),
        ("cat; dog;", "cat;"),
        ("cat|dog", "cat"),
        ('["cat", "dog"]', '["cat"]'),
        ("['cat', 'dog']", "['cat']"),
        ("('cat', 'dog')", "('cat',)"),
        ("{'cat', 'dog'}", "{'cat'}"),
        ("['cat', \"dog\",]", '["cat"]'),
    ],
)
def test_lists_of_each_kind_are_read(tmp_path, cells):
    records = _read(tmp_path, *cells, "")
    assert records.class_names == ("cat", "dog")
    assert records.labels.tolist() == [[1, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize(
    "cells",
    [
        ("polar bear,dog", "dog"),
        ("polar bear; dog", "dog"),
        ("dog | polar bear", "dog"),
        ('["polar bear", "dog"]', "['dog']"),
    ],
)
def test_names_may_hold_spaces(tmp_path, cells):
    records = _read(tmp_path, *cells)
    assert records.class_names == ("dog", "polar bear")
    assert records.labels.tolist() == [[1, 1], [1, 0]]


def test_given_names_may_hold_anything(tmp_path):
    names = ["sea, open", "polar bear", "[x]", "nan", "\u732b\u3001\u72ac", "&"]
    odd.touch(tmp_path, "5.jpg", "6.jpg")
    records = _read(tmp_path, *names, class_names=names)
    assert records.labels.tolist() == np.eye(6, dtype=int).tolist()


def test_separator_can_be_given(tmp_path):
    records = _read(tmp_path, "sea, open;cat", "cat", separator=";")
    assert records.class_names == ("cat", "sea, open")
    assert _read(tmp_path, "a/b,c d", separator=",").class_names == ("a/b", "c d")
    with pytest.raises(ValueError, match="separator: got '/', expected"):
        _read(tmp_path, "cat/dog", separator="/")


def test_items_may_be_numbers_and_escaped(tmp_path):
    assert _read(tmp_path, "[3, 10]", '["caf\\u00e9"]').class_names == ("10", "3", "caf\u00e9")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("cat,dog", "cat;dog"), "line 3: 'cat;dog' holds ';', and ',' separates .* line 2"),
        (("cat,dog|sea",), "line 2: 'cat,dog|sea' holds"),
        (("cat", '["dog"]'), r"line 3: line 2 has 'cat' and line 3 a list in brackets '\['"),
        (('["dog"]', "cat,sea"), r"line 3: line 3 has 'cat,sea' and line 2 a list in brackets"),
        (("[cat, dog]",), r"line 2: '\[cat, dog\]' begins with '\[' and is no list"),
        (("['cat' 'dog']",), "line 2: .* is no list of names in quotes"),
        (('["cat"',), "line 2: .* is no list"),
        (('["cat", ["dog"]]',), "line 2: .* is no list"),
        (('{"cat": 1}',), "line 2: .* begins with '{' and is no list"),
        (("(cat, dog)",), "line 2: .* is no list"),
        (('["cat", null]',), "line 2: .* is no list"),
        (("cat [big]",), r"line 2: the name '\[big\]' .* holds \["),
        (("'cat','dog'",), "line 2: the name \"'cat'\" .* holds '"),
        (("cat,,dog",), "line 2: 'cat,,dog' lists a name that is blank"),
        (("['cat', ' ']",), "line 2: .* lists a name that is blank"),
        (("1 0 1", "0 1 0"), "line 2: '1 0 1' holds a value for each class"),
        (("[1, 0, 0]", "[0, 1, 0]"), "line 2: .* holds a value for each class"),
        (("\u732b\uff0c\u72ac", "\u732b"), "line 2: .* holds '\uff0c'; separate names by"),
        (("\u732b\u3001\u72ac", "\u732b"), "line 2: .* holds '\u3001'"),
        (("cat & dog", "cat"), "line 2: 'cat & dog' lists '&', which is no name"),
        (("cat", "nan"), "line 3: 'nan' lists 'nan', which is no name"),
        (("cat,dog", "None"), "line 3: 'None' lists 'None'"),
        (("cat,dog", "cat dog"), "line 3: 'cat dog' may be one class or the 2 classes cat, dog"),
    ],
)
def test_lists_that_are_not_clear_are_refused(tmp_path, cells, message):
    with pytest.raises(ValueError, match=f"train.csv, {message}"):
        _read(tmp_path, *cells)


def test_given_name_of_words_that_are_names_is_ambiguous_between_spaces(tmp_path):
    names = ["hot dog", "dog", "hot"]
    with pytest.raises(ValueError, match="line 2: 'hot dog' may be one class or the 2 classes hot"):
        _read(tmp_path, "hot dog", "dog", class_names=names)
    records = _read(tmp_path, "hot dog,dog", "hot", class_names=names)
    assert records.labels.tolist() == [[1, 1, 0], [0, 0, 1]]


def test_names_of_training_are_read_whole_in_other_splits(tmp_path):
    _read(tmp_path, "polar bear,dog")
    odd.csv(tmp_path, "image,labels\n1.jpg,polar bear\n", "val")
    assert csv_table("val", root=tmp_path).labels.tolist() == [[0, 1]]


def test_one_column_of_values_is_a_class():
    records = odd.read_odd("csv_one_column")
    assert (records.class_names, records.labels.tolist()) == (("labels",), [[1], [0]])


@pytest.mark.parametrize(
    ("cells", "names", "labels"),
    [
        (("1", "0", "-1"), ("labels",), [[1], [0], [-1]]),
        (("1.0", "0.0"), ("labels",), [[1], [0]]),
        (("3", "7"), ("3", "7"), [[1, 0], [0, 1]]),
        (("1 0", "1"), ("0", "1"), [[1, 1], [0, 1]]),
        (("1,0", "0"), ("0", "1"), [[1, 1], [1, 0]]),
    ],
)
def test_numbers_are_values_or_names(tmp_path, cells, names, labels):
    records = _read(tmp_path, *cells)
    assert (records.class_names, records.labels.tolist()) == (names, labels)


def test_values_are_names_where_these_are_given(tmp_path):
    assert _read(tmp_path, "1", "0", class_names=["0", "1"]).labels.tolist() == [[0, 1], [1, 0]]


def test_value_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="line 3: labels: got '', expected one of -1, 0, 1"):
        _read(tmp_path, "1", "")


def test_table_of_semicolons_says_so():
    with pytest.raises(
        ValueError, match="line 1: .*'image;cat;dog'; its cells are separated by ';'"
    ):
        odd.read_odd("csv_semicolon")


@pytest.mark.parametrize(("separator", "shown"), [(";", "';'"), ("\t", "tabs"), ("|", "'.'")])
@pytest.mark.parametrize("header", ["image,cat,dog", "image,labels"])
def test_table_of_another_separator_says_so(tmp_path, separator, shown, header):
    text = header.replace(",", separator) + "\n" + separator.join(("1.jpg", "1", "0")) + "\n"
    with pytest.raises(
        ValueError, match=f"train.csv, line 1: .* its cells are separated by {shown}"
    ):
        csv_table("train", root=odd.csv(tmp_path, text))
