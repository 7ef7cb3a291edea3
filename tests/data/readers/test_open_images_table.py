"""OpenImages as redistributed: one table with lists of the classes present and absent."""

import pytest

from mljax.data.readers import open_images_table as module
from mljax.data.readers.open_images_table import open_images_table

HEADER = "path,labels,neg_labels,split"
ROWS = (
    "train/a.jpg,\"['/m/03', '/m/02']\",['/m/01'],train",
    'val/b.jpg,[],"[/m/02, /m/03]",val',
    "train/c.jpg,['/m/09'],[],train",
    "train/long.jpg,[],\"['/m/02']\",train",
)


def _write(root, rows=ROWS):
    (root / "oidv6-class-descriptions.csv").write_text(
        "LabelName,DisplayName\n/m/01,Ant\n/m/02,Bee\n/m/03,Cat\n/m/09,Dog\n"
    )
    (root / "oidv6-classes-trainable.txt").write_text("/m/03\n/m/01\n/m/02\n")
    (root / "data.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for name in ("train/a.jpg", "val/b.jpg", "train/c.jpg", "train/long.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    return root


def _labels(records):
    return [row.tolist() for row in records.labels]


@pytest.mark.parametrize("chunk", [1, 2**16])
def test_lists_become_labels(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    records = open_images_table("train", root=_write(tmp_path))
    assert list(records.images) == [str(tmp_path / f"train/{name}.jpg") for name in ("a", "long")]
    assert records.class_names == ("Cat", "Ant", "Bee")
    assert _labels(records) == [[1, 0, 1], [-1, -1, 0]]


def test_lists_may_lack_quotes(tmp_path):
    assert _labels(open_images_table("val", root=_write(tmp_path))) == [[0, -1, 0]]


def test_images_without_annotation_of_the_classes_are_kept_on_request(tmp_path):
    records = open_images_table("train", root=_write(tmp_path), keep_unannotated=True)
    assert _labels(records) == [[1, 0, 1], [-1, -1, -1], [-1, -1, 0]]


def test_present_wins_where_both_lists_name_a_class(tmp_path):
    rows = ["train/a.jpg,['/m/01'],['/m/01'],train"]
    assert _labels(open_images_table("train", root=_write(tmp_path, rows))) == [[-1, 1, -1]]


def test_images_may_lie_elsewhere_and_be_missing(tmp_path):
    root = _write(tmp_path)
    (root / "images").mkdir()
    (root / "train").rename(root / "images" / "train")
    with pytest.raises(ValueError, match="2 of 2 images are missing"):
        open_images_table("train", root=root)
    records = open_images_table("train", root=root, image_folder="images")
    assert records.images[0] == str(root / "images" / "train" / "a.jpg")
    (root / "images" / "train" / "a.jpg").unlink()
    options = {"image_folder": "images", "missing_images": "skip", "mids_as_names": True}
    records = open_images_table("train", root=root, **options)
    assert (_labels(records), records.class_names) == ([[-1, -1, 0]], ("/m/03", "/m/01", "/m/02"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["train/a.jpg,['/m/77'],[],train"], "line 2: unknown class '/m/77'; it is not in oidv6"),
        ([ROWS[0], "train/a.jpg,[],train"], "line 3: got 3 cells, expected at least a path"),
        ([",[],[],train"], "line 2: got 4 cells, expected at least a path"),
        ([ROWS[1]], r"no row is of split 'train'; there are \['val'\]"),
    ],
)
def test_malformed_tables_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=f"data.csv.* {message}"):
        open_images_table("train", root=_write(tmp_path, rows))


def test_missing_table_is_named(tmp_path):
    root = _write(tmp_path)
    (root / "data.csv").unlink()
    with pytest.raises(ValueError, match="data.csv: no such file; expected the redistributed"):
        open_images_table("train", root=root)
