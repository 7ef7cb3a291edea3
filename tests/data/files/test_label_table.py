"""CSV files of labels: what is read, and errors that name the file and the line."""

import os

import pytest

from mljax.data.files.label_table import read_label_table

QUOTED = 'image,note\n"a.png","two\nlines"\n\n'


def _read(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_label_table(path)


def _tables_images(folder, *names):
    rows = "".join(f"{name}\n" for name in names)
    return _read(folder, f"image\n{rows}").image_paths(0, folder)


def test_rows_know_the_line_they_begin_in(tmp_path):
    table = _read(tmp_path, QUOTED + "b.png,\n")
    assert (table.rows, table.lines) == ([["a.png", "two\nlines"], ["b.png", ""]], [2, 5])


@pytest.mark.parametrize(
    ("name", "encoding", "line"),
    [("é", "latin-1", 3), ("é", "utf-16", 1), ("e", "utf-16-le", 1), ("e", "utf-16-be", 1)],
)
def test_file_that_is_not_utf8_is_named_with_its_line(tmp_path, name, encoding, line):
    content = f"image,sea\na.png,1\n{name}.png,1\n".encode(encoding)
    with pytest.raises(ValueError, match=f"table.csv, line {line}: byte .*; save it as UTF-8"):
        _read(tmp_path, content)


def test_file_in_utf8_may_have_a_byte_order_mark(tmp_path):
    assert _read(tmp_path, "image\né.png\n".encode("utf-8-sig")).header == ("image",)


@pytest.mark.parametrize(
    "rest", ['"b.png,1\nc.png,1\n', '"b.png,1\n' + "c.png,1\n" * 20_000, '"b.png,1\n"c.png",1\n']
)
def test_quote_that_is_not_closed_is_named_where_its_row_begins(tmp_path, rest):
    with pytest.raises(ValueError, match="table.csv, line 5: a quote is not closed"):
        _read(tmp_path, QUOTED + rest)


def test_row_of_another_length_is_named_where_it_begins(tmp_path):
    with pytest.raises(ValueError, match="table.csv, line 5: got 3 cells, expected 2 as in the he"):
        _read(tmp_path, QUOTED + 'b.png,"two\nlines",1\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ", line 1: there is no header"),
        ("image,sea\n", ": there is no row below the header"),
        ("image,sea\n\n\n", ": there is no row below the header"),
        ("image,sea,sky,sea\n", ", line 1: a column occurs twice: 'sea'"),
    ],
)
def test_file_without_header_or_rows_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=f"table.csv{message}"):
        _read(tmp_path, content)


def test_each_folder_of_images_is_listed_once(tmp_path, monkeypatch):
    names = [f"{folder}/{number}.png" for number in range(3) for folder in ("a", "b")]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    assert _tables_images(tmp_path, *names) == [str(tmp_path / name) for name in names]
    assert listed == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("name", ["b.png", "folder", "none/a.png", "a.png/a.png", '""', "broken"])
def test_image_that_is_no_file_is_named(tmp_path, name):
    (tmp_path / "a.png").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="table.csv, line 3: there is no image file"):
        _tables_images(tmp_path, "a.png", name)


def test_image_written_in_two_ways_is_named(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"line 3: ./a.png is already in line 2; keep one of them"):
        _tables_images(tmp_path, "a.png", "./a.png")
