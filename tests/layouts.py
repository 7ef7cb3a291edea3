"""Small made-up data sets on disk, one writer for each reader that the configs name."""

import json

import numpy as np
from PIL import Image

from mljax.data.readers.adp import CSV_NAME, IMAGE_FOLDER, LEVELS
from mljax.data.readers.chest_xray import CHEST_XRAY_CLASSES
from mljax.data.readers.voc import VOC_CLASSES

COUNT = 12


def write_images(folder, names):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def table(header, names, columns):
    """Returns CSV text in which row i has its 1 in column i modulo `columns`."""
    ones = np.eye(columns, len(header) - 1, dtype=int)
    rows = [[n, *ones[i % columns]] for i, n in enumerate(names)]
    return "".join(",".join(map(str, row)) + "\n" for row in [header, *rows])


def csv(root):
    names = [f"images/{i}.jpg" for i in range(COUNT)]
    write_images(root / "images", [f"{i}.jpg" for i in range(COUNT)])
    for split in ("train", "val", "test"):
        (root / f"{split}.csv").write_text(table(["image", "cat", "dog"], names, 2))


def coco(root, year=2014):
    (root / "annotations").mkdir(parents=True)
    names = [f"{i}.jpg" for i in range(COUNT)]
    for split in ("train", "val"):
        write_images(root / f"{split}{year}", names)
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": (7, 3)[i % 2], "area": 9.0}
                for i in range(COUNT)
            ],
        }
        (root / f"annotations/instances_{split}{year}.json").write_text(json.dumps(content))


def voc(root):
    write_images(root / "JPEGImages", [f"{i}.jpg" for i in range(COUNT)])
    (root / "Annotations").mkdir()
    (root / "ImageSets/Main").mkdir(parents=True)
    for i in range(COUNT):
        name = "cat" if i % 2 else "dog"
        (root / f"Annotations/{i}.xml").write_text(
            f"<annotation><object><name>{name}</name><difficult>{i % 5 == 0:d}</difficult>"
            "</object></annotation>"
        )
    for split in ("trainval", "test"):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(map(str, range(COUNT))) + "\n")


def voc_csv(root):
    names = [f"{i:06}" for i in range(COUNT)]
    write_images(root / "VOCdevkit/VOC2007/JPEGImages", [f"{n}.jpg" for n in names])
    (root / "files/VOC2007").mkdir(parents=True)
    for split in ("trainval", "test"):
        text = table(["name", *VOC_CLASSES], names, 20)
        text = text.replace(",0", ",-1")
        (root / f"files/VOC2007/classification_{split}.csv").write_text(text)


def adp(root):
    names = [f"{i}.png" for i in range(COUNT)]
    write_images(root / IMAGE_FOLDER, names)
    # Every patch has a class of the first level, which all levels include.
    first = LEVELS["L1"].split()
    classes = [*first, *(name for name in LEVELS["L3"].split() if name not in first)]
    (root / CSV_NAME).write_text(table(["Patch Names", *classes], names, len(first)))
    (root / "splits").mkdir()
    for split in ("train", "valid", "test"):
        np.save(root / f"splits/{split}.npy", np.arange(COUNT))


def chest_xray(root):
    names = [f"{i}.png" for i in range(COUNT)]
    write_images(root / "images/images", names)
    for split in ("train", "val", "test"):
        text = table(["FileName", *CHEST_XRAY_CLASSES], names, 14)
        (root / f"{split}_label.csv").write_text(text)


def open_images(root):
    names = [f"{i:016x}" for i in range(COUNT)]
    descriptions = 'LabelName,DisplayName\n/m/01,Crane\n/m/02,"Sea, open"\n'
    root.mkdir(parents=True)
    (root / "oidv6-class-descriptions.csv").write_text(descriptions)
    (root / "oidv6-classes-trainable.txt").write_text("/m/01\n/m/02\n")
    rows = [f"{n},verification,/m/0{1 + i % 2},{i % 3 > 0:d}" for i, n in enumerate(names)]
    text = "\n".join(["ImageID,Source,LabelName,Confidence", *rows]) + "\n"
    for split in ("train", "validation", "test"):
        prefix = "oidv6-" if split == "train" else ""
        (root / f"{prefix}{split}-annotations-human-imagelabels.csv").write_text(text)
        write_images(root / split, [f"{n}.jpg" for n in names])


def nus_wide_zsl(root):
    names = [f"images/{i}.jpg" for i in range(COUNT)]
    write_images(root / "images", [f"{i}.jpg" for i in range(COUNT)])
    classes = ["bird", "cat", "dog", "fox", "owl"]
    rows = [
        f'{name},"[{classes[i % 3]}, {classes[3 + i % 2]}]",{split}'
        for split in ("train", "val")
        for i, name in enumerate(names)
    ]
    (root / "data.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    sets = {"train class": classes[:3], "test class": classes[3:]}
    (root / "benchmark_81_v0.json").write_text(json.dumps(sets))
    vectors = np.random.default_rng(0).normal(size=(300, len(classes)))
    np.save(root / "wordvec_array.npy", vectors)


def json_lists(root):
    names = [f"images/{i}.jpg" for i in range(COUNT)]
    write_images(root / "images", [f"{i}.jpg" for i in range(COUNT)])
    # Not sorted, and one label twice, as there.
    classes = ["dog", "cat", "bird"]
    images = [[name, [classes[i % 3], classes[i % 2], "dog"]] for i, name in enumerate(names)]
    for split in ("train", "val"):
        (root / f"{split}.json").write_text(json.dumps({"images": images, "classes": classes}))


def numbered_lists(root):
    names = [f"{i}.jpg" for i in range(COUNT)]
    # Not in the order of the numbers, and one label twice.
    numbers = {"dog": 1, "cat": 0, "fox": 2}
    images = [{"file_name": n, "labels": [i % 3, i % 2, 0]} for i, n in enumerate(names)]
    for split in ("train", "val"):
        write_images(root / f"data/{split}2014", names)
        (root / f"data/{split}_anno.json").write_text(json.dumps(images))
    (root / "data/category.json").write_text(json.dumps(numbers))


def nus_wide(root):
    names = [f"actor\\{i}.jpg" for i in range(COUNT)]
    write_images(root / "Flickr/actor", [f"{i}.jpg" for i in range(COUNT)])
    for folder in ("ConceptsList", "Groundtruth/TrainTestLabels", "ImageList"):
        (root / folder).mkdir(parents=True)
    concepts = ["airport", "animal", "beach"]
    (root / "ConceptsList/Concepts81.txt").write_text("\n".join(concepts) + "\n")
    for split in ("Train", "Test"):
        (root / f"ImageList/{split}Imagelist.txt").write_text("\n".join(names) + "\n")
        for c, concept in enumerate(concepts):
            text = "".join(f"{i % 4 == c:d}\n" for i in range(COUNT))
            path = f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt"
            (root / path).write_text(text)


def vg500(root):
    names = [f"{i}.jpg" for i in range(COUNT)]
    write_images(root / "VG_100K", names[::2])
    write_images(root / "VG_100K_2", names[1::2])
    indices = {name: [i, 499 - i] for i, name in enumerate(names)}
    (root / "vg_category_500_labels_index.json").write_text(json.dumps(indices))
    for split in ("train", "test"):
        (root / f"{split}_list_500.txt").write_text("\n".join(names) + "\n")


def cifar(root):
    """Writes CIFAR-10's and CIFAR-100's files into one folder, one image a class."""
    root.mkdir(parents=True)
    for names, count, label_bytes, files in (
        ("batches.meta.txt", 10, 1, [f"data_batch_{n}.bin" for n in range(1, 6)]),
        ("batches.meta.txt", 10, 1, ["test_batch.bin"]),
        ("fine_label_names.txt", 100, 2, ["train.bin", "test.bin"]),
    ):
        (root / names).write_text("".join(f"class{n}\n" for n in range(count)))
        rows = np.zeros((count, label_bytes + 3072), np.uint8)
        rows[:, label_bytes - 1] = np.arange(count)
        for file in files:
            rows.tofile(root / file)


WRITERS = {
    "cifar10": cifar,
    "cifar100": cifar,
    "csv": csv,
    "coco": coco,
    "voc": voc,
    "voc_csv": voc_csv,
    "adp": adp,
    "chest_xray": chest_xray,
    "open_images": open_images,
    "nus_wide_zsl": nus_wide_zsl,
    "json_lists": json_lists,
    "numbered_lists": numbered_lists,
    "nus_wide": nus_wide,
    "vg500": vg500,
}
