"""Damaged files of every format: the readers read them or raise a ValueError, and nothing else."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mljax.data import READERS
from mljax.trackers.class_prior import read_prior
from tests import layouts
from tests.data import odd_folders as odd


def _lvis(root):
    odd.coco(root, odd.content())


def _lists(root):
    odd.csv(root, "image,labels\n1.jpg,\"['cat', 'dog']\"\n2.jpg,\"['cat']\"\n3.jpg,\n")


def _devkit(root):
    layouts.voc_csv(root)
    for path in (root / "files/VOC2007").iterdir():
        path.unlink()
    lists = root / "VOCdevkit/VOC2007/ImageSets/Main"
    odd.write(lists / "cat_trainval.txt", "000001  1\n000002 -1\n")
    odd.write(lists / "dog_trainval.txt", "000001 -1\n000002  0\n")


def _table(root):
    layouts.open_images(root)
    rows = ["a.jpg,\"['/m/01', '/m/02']\",[],train", "b.jpg,[],['/m/01'],train"]
    odd.write(root / "data.csv", "\n".join(["path,yes,no,split", *rows]) + "\n")
    odd.touch(root, "a.jpg", "b.jpg")


def _prior(root):
    odd.write(root / "prior.csv", "Classes,avg_pred\ncat,0.5\ndog,0.25\n")


# Each: a writer, what reads the folder.
FORMATS = {
    name: (
        layouts.WRITERS[name],
        lambda root, name=name, split=split: READERS[name](split, root=root),
    )
    for name, split in {
        "csv": "val",
        "coco": "train",
        "voc": "test",
        "voc_csv": "test",
        "adp": "train",
        "chest_xray": "val",
        "open_images": "validation",
        "json_lists": "val",
        "numbered_lists": "val",
        "nus_wide": "test",
        "vg500": "test",
    }.items()
} | {
    "csv_lists": (_lists, lambda root: READERS["csv"]("train", root=root)),
    "coco_subset": (
        lambda root: (_lvis(root), odd.write(root / "ids.txt", "1\n2\n")),
        lambda root: READERS["coco"]("train", root=root, image_ids=root / "ids.txt"),
    ),
    "lvis": (_lvis, lambda root: READERS["lvis"]("train", root=root)),
    "devkit": (
        _devkit,
        lambda root: READERS["voc_csv"]("trainval", root=root, class_names=("cat", "dog")),
    ),
    "open_images_ids": (
        lambda root: (
            layouts.open_images(root),
            odd.write(root / "ids.csv", "ImageID,x\n0000000000000001,1\n"),
        ),
        lambda root: READERS["open_images"]("train", root=root, image_ids="ids.csv"),
    ),
    "open_images_table": (_table, lambda root: READERS["open_images_table"]("train", root=root)),
    "nus_wide_zsl": (
        layouts.nus_wide_zsl,
        lambda root: READERS["nus_wide_zsl"](
            "val", root=root, word_vectors="wordvec_array.npy", missing_images="skip"
        ),
    ),
    "prior": (_prior, lambda root: read_prior(root / "prior.csv", ("cat", "dog"))),
}
PICTURES = (".jpg", ".png")
TOKENS = [
    *(b'"', b"'", b",", b";", b"|", b"\t", b"\n", b"\r", b"\0", b"[", b"]", b"{", b"}", b"(", b"<"),
    *(b"\xff", b"\xe9", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"e\xcc\x81"),
    *(b" ", b"", b"1.5", b"-1", b"NaN", b"null", b"true", b"1e999", b"9" * 30, b"9" * 5000),
    *(b"[" * 9000, b"x" * 200_000, b"../", b"/", b"<?xml version='1.0' encoding='x'?>", b"&a;"),
]
VALUES = [
    *(None, True, False, 0, -1, 2**70, 1.5, 1.0, float("nan"), float("inf"), 10**400, "", " ", "1"),
    *("a\0b", "\ud800", "/", "..", "cat", "e\u0301", [], [1], [[]], {}, {"id": 1}, {"a": []}),
]


def _damage_bytes(content, place, length, token):
    start = int(place * len(content))
    return content[:start] + token + content[start + length :]


def _places(thing, path=()):
    yield path
    children = thing.items() if isinstance(thing, dict) else ()
    children = enumerate(thing) if isinstance(thing, list) else children
    for key, value in children:
        yield from _places(value, (*path, key))


def _damage_json(content, place, length, value):
    thing = {"": json.loads(content)}
    paths = list(_places(thing))[1:]
    *parents, last = paths[int(place * (len(paths) - 1))]
    owner = thing
    for key in parents:
        owner = owner[key]
    if length and parents:
        del owner[last]
    else:
        owner[last] = value
    return json.dumps(thing[""]).encode()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns {format: its folder}."""
    found = {}
    for name, (writer, _) in FORMATS.items():
        root = tmp_path_factory.mktemp("sets") / name
        writer(root)
        found[name] = root
    return found


@functools.cache
def _contents(root):
    """Returns the sound content of each file of labels."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix not in PICTURES)
    return {path: path.read_bytes() for path in files}


@pytest.mark.parametrize("name", FORMATS)
def test_sound_files_are_read(folders, name):
    FORMATS[name][1](folders[name])


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    file=st.floats(0, 1, exclude_max=True),
    place=st.floats(0, 1),
    length=st.sampled_from([0, 0, 1, 1, 2, 5, 10**6]),
    token=st.integers(0, len(TOKENS) - 1),
    value=st.integers(0, len(VALUES) - 1),
    whole=st.booleans(),
)
def test_damaged_files_are_read_or_refused_with_the_file(
    folders, name, file, place, length, token, value, whole
):
    root = folders[name]
    files = _contents(root)
    path = list(files)[int(file * len(files))]
    content = files[path]
    if path.suffix == ".json" and whole:
        damaged = _damage_json(content, place, length, VALUES[value])
    else:
        damaged = _damage_bytes(content, place, length, TOKENS[token])
    path.write_bytes(damaged)
    try:
        records = FORMATS[name][1](root)
        if name != "prior":
            _check_records(records)
    except ValueError as error:
        # Not one of its kinds, such as UnicodeDecodeError.
        assert type(error) is ValueError, repr(error)
        known = ("records are empty", "labels have ", "vectors: ")
        assert str(root) in str(error) or str(error).startswith(known), error
        json.dumps(str(error)).encode()
    finally:
        path.write_bytes(content)


def _check_records(records):
    assert all(type(name) is str and name.strip() for name in records.class_names)
    "".join(records.class_names).encode()
    for image, row in zip(records.images, records.labels, strict=True):
        assert Path(image).is_file()
        assert set(np.asarray(row).tolist()) <= {-1, 0, 1}
