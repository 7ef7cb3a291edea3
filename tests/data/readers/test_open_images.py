"""OpenImages as released: layout, streaming, memory, and errors that name file and line."""

import tracemalloc

import numpy as np
import pytest

from mljax.data.readers import open_images as module
from mljax.data.readers.open_images import class_names_of, open_images

HEADER = "ImageID,Source,LabelName,Confidence"
A, B, C = "00000aaaaaaaaaaa", "11111bbbbbbbbbbb", "22222ccccccccccc"
ROWS = (
    f"{B},verification,/m/01,1",
    f"{B},crowdsource-verification,/m/03,0",
    f"{A},verification,/m/02,0",
    f"{A},verification,/m/09,1",
    f"{B},verification,/m/02,1",
)


def _write(root, rows=ROWS, split="train"):
    (root / "oidv6-class-descriptions.csv").write_text(
        'LabelName,DisplayName\n/m/01,Crane\n/m/02,"Sea, open"\n/m/03,Crane\n/m/09,Dog\n'
    )
    (root / "oidv6-classes-trainable.txt").write_text("/m/03\n/m/01\n/m/02\n")
    prefix = "oidv6-" if split == "train" else ""
    file = root / f"{prefix}{split}-annotations-human-imagelabels.csv"
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    (root / split).mkdir(exist_ok=True)
    for name in (A, B, C):
        (root / split / f"{name}.jpg").touch()
    return root


def _labels(records):
    return [row.tolist() for row in records.labels]


def test_verified_rows_become_labels_wherever_they_stand(tmp_path):
    records = open_images("train", root=_write(tmp_path))
    assert list(records.images) == [str(tmp_path / "train" / f"{name}.jpg") for name in (B, A)]
    assert records.class_names == ("Crane (/m/03)", "Crane (/m/01)", "Sea, open")
    assert _labels(records) == [[0, 1, 1], [-1, -1, 0]]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_other_splits_have_other_file_names(tmp_path, split):
    records = open_images(split, root=_write(tmp_path, split=split))
    assert records.images[1] == str(tmp_path / split / f"{A}.jpg")


@pytest.mark.parametrize("block", [1, 60, 100, 2**20])
def test_labels_do_not_depend_on_the_size_of_the_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    records = open_images("train", root=_write(tmp_path))
    assert _labels(records) == [[0, 1, 1], [-1, -1, 0]]


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_last_line_may_lack_its_end(tmp_path, ending):
    root = _write(tmp_path)
    file = root / "oidv6-train-annotations-human-imagelabels.csv"
    file.write_bytes(ending.join([HEADER, *ROWS]).encode())
    assert _labels(open_images("train", root=root)) == [[0, 1, 1], [-1, -1, 0]]


def test_empty_lines_may_follow_the_last(tmp_path):
    root = _write(tmp_path)
    with (root / "oidv6-train-annotations-human-imagelabels.csv").open("a") as file:
        file.write("\n\n")
    assert _labels(open_images("train", root=root)) == [[0, 1, 1], [-1, -1, 0]]


@pytest.mark.parametrize("rows", [ROWS[::-1], sorted(ROWS)])
def test_order_of_images_is_that_of_their_first_rows(tmp_path, rows):
    records = open_images("train", root=_write(tmp_path, rows))
    first = list(dict.fromkeys(row[:16] for row in rows))
    assert [path[-20:-4] for path in records.images] == first
    assert sorted(_labels(records)) == [[-1, -1, 0], [0, 1, 1]]


def test_machine_labels_are_left_out(tmp_path):
    rows = [f"{A},machine,/m/01,0.7", f"{A},verification,/m/02,1.0", f"{A},verification,/m/03,0.0"]
    assert _labels(open_images("train", root=_write(tmp_path, rows))) == [[0, -1, 1]]


def test_present_wins_where_rows_contradict_each_other(tmp_path):
    for confidences in ((0, 1), (1, 0)):
        rows = [f"{A},verification,/m/01,{c}" for c in confidences]
        assert _labels(open_images("train", root=_write(tmp_path, rows))) == [[-1, 1, -1]]


def test_images_without_annotation_of_the_classes_are_left_out_unless_kept(tmp_path):
    root = _write(tmp_path, [*ROWS, f"{C},verification,/m/09,1"])
    assert len(open_images("train", root=root)) == 2
    records = open_images("train", root=root, keep_unannotated=True)
    assert records.images[2].endswith(f"{C}.jpg")
    assert records.labels[2].tolist() == [-1, -1, -1]


@pytest.mark.parametrize("keep", [False, True])
def test_image_list_chooses_images_and_their_order(tmp_path, keep):
    root = _write(tmp_path)
    # Google's lists of images have titles with commas.
    (root / "ids.csv").write_text(f'Title,ImageID\n"a, b",{A}\nc,{C}\nd,{B}\n')
    records = open_images("train", root=root, image_ids="ids.csv", keep_unannotated=keep)
    expected = {A: [-1, -1, 0], C: [-1, -1, -1], B: [0, 1, 1]}
    if not keep:
        del expected[C]
    assert [path[-20:-4] for path in records.images] == list(expected)
    assert _labels(records) == list(expected.values())


def test_missing_images_are_counted_or_skipped(tmp_path):
    root = _write(tmp_path)
    (root / "train" / f"{B}.jpg").unlink()
    with pytest.raises(ValueError, match=f"1 of 2 images are missing, such as .*{B}.jpg"):
        open_images("train", root=root)
    records = open_images("train", root=root, missing_images="skip")
    assert ([path[-20:-4] for path in records.images], _labels(records)) == ([A], [[-1, -1, 0]])
    assert len(open_images("train", root=root, missing_images="unchecked")) == 2


def test_training_images_may_lie_in_the_folders_of_their_archives(tmp_path):
    root = _write(tmp_path)
    for name in (A, B):
        (root / f"train_{name[0]}").mkdir()
        (root / f"train_{name[0]}" / f"{name}.jpg").touch()
    records = open_images("train", root=root, pattern="{split}_{name[0]}/{name}.jpg")
    assert records.images[0] == str(tmp_path / "train_1" / f"{B}.jpg")


def test_classes_can_be_listed_and_named_by_their_ids(tmp_path):
    records = open_images(
        "train", root=_write(tmp_path), classes=["/m/09", "/m/02"], mids_as_names=True
    )
    assert records.class_names == ("/m/09", "/m/02")
    assert _labels(records) == [[-1, 1], [1, 0]]


def test_class_names_stand_for_one_class_each(tmp_path):
    names = class_names_of(_write(tmp_path) / "oidv6-class-descriptions.csv")
    assert names == {
        "/m/01": "Crane (/m/01)",
        "/m/02": "Sea, open",
        "/m/03": "Crane (/m/03)",
        "/m/09": "Dog",
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{A},verification,/m/77,1", "line 4: unknown class '/m/77'; it is not in oidv6-class-de"),
        (f"{A},verification,/m/01", "line 4: got 3 cells, expected 4 as in the header"),
        (f"{A},verification,/m/01,1,1", "line 4: got 5 cells, expected 4"),
        (f"{A},verification,/m/01,2", r"line 4: expected a confidence in \[0, 1\], got '2'"),
        (f"{A},verification,/m/01,", "line 4: expected a confidence .* got ''"),
        (f"{A},verification,/m/01,nan", "line 4: expected a confidence .* got 'nan'"),
        ("a" * 80 + ",verification,/m/01,1", "line 4: a cell has 80 characters"),
    ],
)
@pytest.mark.parametrize("block", [1, 2**20])
def test_malformed_rows_are_named(tmp_path, monkeypatch, row, message, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    root = _write(tmp_path, [*ROWS[:2], row, *ROWS[2:]])
    with pytest.raises(ValueError, match=f"human-imagelabels.csv, {message}"):
        open_images("train", root=root)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("oidv6-train-annotations-human-imagelabels.csv", "A,B\n", "line 1: there is no column Im"),
        ("oidv6-train-annotations-human-imagelabels.csv", HEADER + "\n", "no row below the header"),
        ("oidv6-classes-trainable.txt", "/m/01\n/m/5\n", "line 2: '/m/5' is no class in .*descrip"),
        ("oidv6-class-descriptions.csv", "/m/01,a\n/m/01,b\n", "line 2: expected a MID that is ne"),
        ("oidv6-class-descriptions.csv", "/m/01,a,b\n", "line 1: expected a MID .* '/m/01,a,b'"),
        ("oidv6-class-descriptions.csv", '/m/01,"a\n', "line 1: a quote is not closed"),
        ("ids.csv", "A\n", "line 1: there is no column ImageID in 'A'"),
        ("ids.csv", f"ImageID\n{A}\n{A}\n", "ids.csv: an image is listed twice"),
        ("ids.csv", f"X,ImageID\n1,{A}\n1\n", "line 3: there is no ImageID"),
    ],
)
def test_malformed_files_are_named(tmp_path, name, text, message):
    root = _write(tmp_path)
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        open_images("train", root=root, image_ids="ids.csv" if name == "ids.csv" else None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oidv6-train-annotations-human-imagelabels.csv", "expected .*oidv6-train.* or .*train-an"),
        ("oidv6-class-descriptions.csv", "no such file; expected the class descriptions"),
        ("oidv6-classes-trainable.txt", "no such file; expected MIDs"),
    ],
)
def test_missing_files_are_named(tmp_path, name, message):
    root = _write(tmp_path)
    (root / name).unlink()
    with pytest.raises(ValueError, match=message):
        open_images("train", root=root)


def test_missing_image_list_is_named(tmp_path):
    with pytest.raises(ValueError, match="ids.csv: no such file; expected a CSV file with a colum"):
        open_images("train", root=_write(tmp_path), image_ids="ids.csv")


def _many(root, count):
    """Writes 6.7 rows each for `count` images; returns the number of rows."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(count), rng.poisson(6.7, count)).tolist()
    mids = [f"/m/{number:05x}" for number in range(1000)]
    (root / "oidv6-class-descriptions.csv").write_text("".join(f"{mid},{mid}\n" for mid in mids))
    (root / "oidv6-classes-trainable.txt").write_text("\n".join(mids))
    with (root / "oidv6-train-annotations-human-imagelabels.csv").open("w") as file:
        file.write(HEADER + "\n")
        file.writelines(
            f"{row:016x},verification,{mids[n % 997]},{n % 2}\n" for n, row in enumerate(rows)
        )
    return len(rows)


def test_a_million_images_take_less_than_200_megabytes(tmp_path):
    count = 100_000
    rows = _many(tmp_path, count)
    tracemalloc.start()
    try:
        records = open_images("train", root=tmp_path, missing_images="unchecked")
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    images = len(records)
    assert images > 0.99 * count
    # An id of 16 bytes, the place of a row, and 3 bytes an annotation.
    assert records.labels.nbytes + records.images.names.nbytes == 24 * images + 8 + 3 * rows
    million = 1e6 / count
    assert kept * million < 60e6
    # What one block takes does not grow with the file.
    assert (peak - 8e6) * million < 200e6
