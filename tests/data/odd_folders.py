"""The odd folders in `odd/`, and small ones of each format made from what a test changes."""

import json
from pathlib import Path

import numpy as np

from mljax.data import READERS

ODD = Path(__file__).parent / "odd"


def rows(records):
    """Returns {image's name: labels}."""
    names = [Path(path).name for path in records.images]
    return dict(zip(names, [np.asarray(row).tolist() for row in records.labels], strict=True))


def read_odd(name, split="train", **options):
    """Reads a folder in `odd/`, whose name begins with the reader's."""
    reader = next(r for r in ("open_images", "coco", "csv", "lvis", "voc") if name.startswith(r))
    return READERS[reader](split, root=ODD / name, **options)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def csv(root, text, split="train"):
    touch(root, *(f"{number}.jpg" for number in range(1, 5)))
    write(root / f"{split}.csv", text)
    return root


def content(names=("cat", "dog"), files=("1.jpg", "2.jpg"), image_ids=(1, 2), category_ids=(1, 2)):
    """Returns an annotation file of COCO in which image i has category i."""
    images = [
        {
            "id": i,
            "file_name": f,
            "coco_url": f"http://h/train2017/{f}",
            "neg_category_ids": [],
        }
        for i, f in zip(image_ids, files, strict=True)
    ]
    categories = [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True)]
    notes = [
        {"image_id": i, "category_id": c} for i, c in zip(image_ids, category_ids, strict=False)
    ]
    return {"images": images, "categories": categories, "annotations": notes}


def coco(root, annotations, split="train"):
    """Writes the file both for COCO and for LVIS."""
    text = annotations if isinstance(annotations, str | bytes) else json.dumps(annotations)
    touch(root, f"{split}2017/1.jpg", f"{split}2017/2.jpg")
    write(root / f"annotations/instances_{split}2017.json", text)
    write(root / f"lvis_v1_{split}.json", text)
    return root


def thing(name, rest=""):
    return f"<object><name>{name}</name>{rest}</object>"


def voc(root, annotations, pictures, lines=None, split="train"):
    """Writes annotations, {name: XML}, pictures by name, and a list of some or all names."""
    for name, xml in annotations.items():
        write(root / f"Annotations/{name}.xml", xml)
    touch(root, *(f"JPEGImages/{name}" for name in pictures))
    write(root / f"ImageSets/Main/{split}.txt", "\n".join(lines or annotations))
    return root
