"""OpenImages V6 as Google releases it: CSV files of image-level labels, images by id.

Kuznetsova et al., "The Open Images Dataset V4", https://arxiv.org/abs/1811.00982; the files are at
https://storage.googleapis.com/openimages/web/download_v6.html:

    oidv6-class-descriptions.csv                     LabelName,DisplayName
    oidv6-classes-trainable.txt                      9,605 class ids (MIDs), one a line
    oidv6-train-annotations-human-imagelabels.csv    ImageID,Source,LabelName,Confidence
    validation-annotations-human-imagelabels.csv
    test-annotations-human-imagelabels.csv
    train/000002b66c9c498e.jpg                       and so on

A label that people verified has the confidence 1 (present) or 0 (absent). All others are
unannotated, as in Ben-Baruch et al., https://arxiv.org/abs/2110.10955.

The reader holds arrays alone, no Python object a row: with 6.7 annotations an image, a million
images take 44 MB once read and 150 MB at most while they are read; more than that if the rows of
an image do not stand together. Sixty million rows take about a minute.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt

from mljax.data.files.folders import split_names
from mljax.data.files.image_paths import ImagePaths, present_images
from mljax.data.files.label_table import read_rows
from mljax.data.files.names import check_class_names
from mljax.data.files.text import read_utf8, separator_note
from mljax.data.records import Records
from mljax.data.sparse_labels import SparseLabels

DESCRIPTIONS = "oidv6-class-descriptions.csv"
TRAINABLE = "oidv6-classes-trainable.txt"

# Bytes of a CSV file that are cut into cells at once.
_BLOCK = 2**20
# Cells are stored in the width of the longest: one of them must not exhaust the memory.
_MAX_CELL = 64


def open_images(
    split: str,
    *,
    root: str | Path,
    pattern: str = "{split}/{name}.jpg",
    classes: str | Path | Sequence[str] = TRAINABLE,
    image_ids: str | Path | None = None,
    keep_unannotated: bool = False,
    missing_images: str = "fail",
    mids_as_names: bool = False,
) -> Records:
    """Reads one split of OpenImages V6.

    The rows of an image need not stand together. Rows with a confidence between 0 and 1 (labels by
    machines) and rows of classes that are not asked for are left out. Where several rows of an
    image and a class contradict each other, the class is present.

    Args:
      split: `train`, `validation` or `test`.
      root: the folder of the CSV files, and of the images.
      pattern: an image's path under `root`, from `{split}` and its id `{name}`; the archives of
        the training images unpack to `{split}_{name[0]}/{name}.jpg`.
      classes: MIDs in label order, or the file under `root` that lists them.
      image_ids: the file under `root` that lists the images to read, in this order: a CSV file
        with a column `ImageID` such as `validation-images-with-rotation.csv`. None reads those
        with rows in the annotations, in the order of first appearance.
      keep_unannotated: also keep images without any annotation of the classes.
      missing_images: `fail` raises if an image is not there, `skip` leaves it out, `unchecked`
        does not look (which takes five seconds for a million images on a local disk).
      mids_as_names: name the classes by their MIDs instead of by `class_names_of`.

    Raises:
      ValueError: if a file, an image or a class is missing, or for a malformed row; the message
        names the file and the line.
    """
    root = Path(root)
    known = class_names_of(root / DESCRIPTIONS)
    mids = chosen_classes(root, classes, known)
    ids, labels = _read_annotations(_annotation_file(root, split), known, mids)
    chosen = np.arange(len(ids))
    if image_ids is not None:
        listed = _read_ids(root / image_ids)
        chosen = _positions(listed, ids)
        ids = listed
    if not keep_unannotated:
        annotated = (chosen >= 0) & (labels.annotations()[chosen] > 0)
        chosen, ids = chosen[annotated], ids[annotated]
    images = ImagePaths(ids, root, pattern.replace("{split}", split))
    there = present_images(images, missing_images)
    return Records(
        images=images.take(there),
        labels=labels.take(chosen[there]),
        class_names=mids if mids_as_names else tuple(known[mid] for mid in mids),
    )


def class_names_of(path: str | Path) -> dict[str, str]:
    """Returns {MID: name} of all classes in the file of class descriptions, in its order.

    A display name that several of them have is followed by the MID, as `Crane (/m/...)`, so that
    each name stands for one class whichever of them are used.

    Raises:
      ValueError: for no such file, or a malformed or repeated line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the class descriptions of OpenImages V6")
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for line, row in read_rows(path):
        if not row or row == ["LabelName", "DisplayName"]:
            continue
        if len(row) != 2 or not row[0] or row[0] in names:
            raise ValueError(
                f"{path}, line {line}: expected a MID that is new and its name, got "
                f"{','.join(row)!r}{separator_note(row[0])}"
            )
        (name,) = check_class_names(row[1:], f"{path}, line {line}")
        names[row[0]] = name
        counts[name] = counts.get(name, 0) + 1
    if not names:
        raise ValueError(f"{path}: there is no class in it")
    return {mid: name if counts[name] == 1 else f"{name} ({mid})" for mid, name in names.items()}


def chosen_classes(
    root: Path, classes: str | Path | Sequence[str], known: dict[str, str]
) -> tuple[str, ...]:
    """Returns the MIDs given, or those of the file under `root` that is given.

    Raises:
      ValueError: for no such file, or a MID that is not in `known`.
    """
    source = "classes"
    if isinstance(classes, str | Path):
        path = root / classes
        source = str(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; expected MIDs such as /m/01g317, one a line")
        classes = read_utf8(path).split()
    for number, mid in enumerate(classes, 1):
        if mid not in known:
            raise ValueError(
                f"{source}, line {number}: {mid!r} is no class in {root / DESCRIPTIONS}"
            )
    return tuple(classes)


def _annotation_file(root: Path, split: str) -> Path:
    name = f"{split}-annotations-human-imagelabels.csv"
    candidates = [root / f"oidv6-{name}", root / name]
    for path in candidates:
        if path.is_file():
            return path
    raise ValueError(
        f"no OpenImages annotations: expected {' or '.join(map(str, candidates))}; "
        f"{split_names(candidates, split)}"
    )


def _read_annotations(
    path: Path, known: dict[str, str], mids: tuple[str, ...]
) -> tuple[Shaped[np.ndarray, " n"], SparseLabels]:
    """Returns the ids of all images in the file, in the order of first appearance; labels."""
    sorted_mids = np.sort(np.array([mid.encode() for mid in known]))
    column_of = np.full(len(sorted_mids), -1, np.int32)
    column_of[np.searchsorted(sorted_mids, [mid.encode() for mid in mids])] = np.arange(len(mids))
    narrow = np.min_scalar_type(len(mids))
    # Of each run of rows with the same image: its id, and how many annotations are kept.
    ids, counts, columns, present = [], [], [], []
    for line, cells in _blocks(path, ("ImageID", "LabelName", "Confidence")):
        at = np.minimum(np.searchsorted(sorted_mids, cells[1]), len(sorted_mids) - 1)
        unknown = np.flatnonzero(sorted_mids[at] != cells[1])
        if len(unknown):
            raise ValueError(
                f"{path}, line {line + unknown[0]}: unknown class "
                f"{cells[1][unknown[0]].item().decode()!r}; it is not in {DESCRIPTIONS}"
            )
        if len(blank := np.flatnonzero(cells[0] == b"")):
            raise ValueError(f"{path}, line {line + blank[0]}: there is no ImageID")
        yes, no = _verified(path, line, cells[2])
        kept = (column_of[at] >= 0) & (yes | no)
        starts = np.flatnonzero(np.append(True, cells[0][1:] != cells[0][:-1]))
        ids.append(cells[0][starts])
        counts.append(np.add.reduceat(kept, starts, dtype=np.int64))
        columns.append(column_of[at[kept]].astype(narrow))
        present.append(yes[kept])
    if not ids:
        raise ValueError(f"{path}: there is no row below the header")
    columns, present = np.concatenate(columns), np.concatenate(present)
    return _unite(np.concatenate(ids), np.concatenate(counts), columns, present, len(mids))


def _unite(
    ids: Shaped[np.ndarray, " runs"],
    counts: Int[np.ndarray, " runs"],
    columns: UInt[np.ndarray, " m"],
    present: Bool[np.ndarray, " m"],
    num_classes: int,
) -> tuple[Shaped[np.ndarray, " n"], SparseLabels]:
    """Returns the images and their labels, from runs of rows with the same image."""
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    ids, counts = ids[starts], np.add.reduceat(counts, starts)
    if np.all(ids[1:] > ids[:-1]):
        starts = np.append(0, np.cumsum(counts))
        return ids, SparseLabels(starts, columns, present, num_classes=num_classes)
    unique, first, image = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(unique), np.uint32)
    rank[order] = np.arange(len(unique), dtype=np.uint32)
    rows = np.repeat(rank[image], counts)
    shape = (len(unique), num_classes)
    return unique[order], SparseLabels.from_annotations(rows, columns, present, shape=shape)


def _verified(
    path: Path, line: int, confidences: Shaped[np.ndarray, " r"]
) -> tuple[Bool[np.ndarray, " r"], Bool[np.ndarray, " r"]]:
    """Returns which rows say present, and which say absent."""
    present, absent = confidences == b"1", confidences == b"0"
    for row in np.flatnonzero(~(present | absent)).tolist():
        try:
            value = float(confidences[row])
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ValueError(
                f"{path}, line {line + row}: expected a confidence in [0, 1], got "
                f"{confidences[row].decode()!r}"
            )
        present[row], absent[row] = value == 1, value == 0
    return present, absent


def _read_ids(path: Path) -> Shaped[np.ndarray, " n"]:
    """Returns the column `ImageID` of a file whose other columns may hold quoted commas."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a CSV file with a column ImageID")
    numbered = read_rows(path, strict=False)
    _, header = next(numbered, (1, []))
    if "ImageID" not in header:
        names = ",".join(header)
        raise ValueError(
            f"{path}, line 1: there is no column ImageID in {names!r:.200}{separator_note(names)}"
        )
    column = header.index("ImageID")
    chunks = [np.array([b""])]
    while rows := list(itertools.islice(numbered, _BLOCK // _MAX_CELL)):
        cells = [row[column].encode() if len(row) > column else b"" for _, row in rows]
        if b"" in cells:
            raise ValueError(f"{path}, line {rows[cells.index(b'')][0]}: there is no ImageID")
        if (width := max(map(len, cells))) > _MAX_CELL:
            raise ValueError(f"{path}: an ImageID has {width} bytes, expected at most {_MAX_CELL}")
        chunks.append(np.array(cells))
    ids = np.concatenate(chunks)[1:]
    if len(np.unique(ids)) < len(ids):
        raise ValueError(f"{path}: an image is listed twice")
    return ids


def _positions(
    wanted: Shaped[np.ndarray, " m"], ids: Shaped[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """Returns where each wanted id stands among the ids, -1 where it does not."""
    order = np.argsort(ids)
    at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[at] == wanted, at, -1)


def _blocks(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yields the cells of the named columns, as bytes strings, block by block of a CSV file.

    The files have no quoted cells, so every comma ends a cell. Numpy finds them eight times faster
    than the csv module makes Python objects of them.

    Yields:
      The number of the block's first line, and an array a column.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a CSV file with {', '.join(names)}")
    with path.open("rb") as file:
        first = file.readline().removeprefix(b"\xef\xbb\xbf")
        _check_text(path, 1, first)
        header = first.decode().strip().split(",")
        if missing := [name for name in names if name not in header]:
            raise ValueError(
                f"{path}, line 1: there is no column {' and '.join(missing)} in "
                f"{','.join(header):.200}{separator_note(header[0])}"
            )
        line = 2
        while block := file.read(_BLOCK):
            block = (block + file.readline()).replace(b"\r", b"").rstrip(b"\n") + b"\n"
            data = np.frombuffer(block, np.uint8)
            if data.max() > 127 or not data.min():
                _check_text(path, line, block)
            is_newline = data == ord("\n")
            ends = np.flatnonzero(is_newline | (data == ord(",")))
            if (
                len(ends) % len(header)
                or not is_newline[ends[len(header) - 1 :: len(header)]].all()
            ):
                raise _ragged(path, line, block, len(header))
            stops = ends.reshape(-1, len(header))
            starts = np.append(0, ends[:-1] + 1).reshape(stops.shape)
            used = [header.index(name) for name in names]
            yield line, [_cut(path, line, data, starts[:, c], stops[:, c]) for c in used]
            line += len(stops)


def _check_text(path: Path, line: int, content: bytes) -> None:
    try:
        at = content.decode().find("\0")
    except UnicodeDecodeError as error:
        content, at = content[: error.start + 1], error.start
    if at >= 0:
        line += content.count(b"\n", 0, at)
        raise ValueError(
            f"{path}, line {line}: byte {content[at]:#04x} is not UTF-8 text; save it as UTF-8"
        )


def _cut(
    path: Path,
    line: int,
    data: Shaped[np.ndarray, " bytes"],
    starts: Int[np.ndarray, " r"],
    stops: Int[np.ndarray, " r"],
) -> Shaped[np.ndarray, " r"]:
    widths = stops - starts
    width = max(int(widths.max()), 1)
    if width > _MAX_CELL:
        raise ValueError(
            f"{path}, line {line + int(widths.argmax())}: a cell has {width} characters, expected "
            f"at most {_MAX_CELL}"
        )
    at = np.arange(width)
    cells = np.take(data, starts[:, None] + at[None, :], mode="clip")
    cells[at[None, :] >= widths[:, None]] = 0
    return cells.view(f"S{width}")[:, 0]


def _ragged(path: Path, line: int, block: bytes, width: int) -> ValueError:
    for number, text in enumerate(block.splitlines(), line):
        found = text.count(b",") + 1
        if found != width:
            line = number
            break
    return ValueError(f"{path}, line {line}: got {found} cells, expected {width} as in the header")
