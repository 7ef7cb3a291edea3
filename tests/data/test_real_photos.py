"""The readers and the pipeline on real photos, where the environment says they are.

MLJAX_TEST_DATA names a folder with `scene/` (CSV), `coco_sample/` (COCO 2017) and
`voc_layout_bccd/VOC2007/`.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mljax.config.schema import Preprocessing
from mljax.data import AUGMENTATIONS, READERS
from mljax.data.pipeline import eval_batches, train_batches

DATA = Path(os.environ.get("MLJAX_TEST_DATA", ""))
pytestmark = pytest.mark.skipif(
    "MLJAX_TEST_DATA" not in os.environ, reason="MLJAX_TEST_DATA does not name the real photos"
)


@pytest.mark.parametrize(
    ("reader", "split", "arguments", "count", "positives"),
    [
        ("csv", "train", {"root": "scene"}, 1209, 1499),
        ("csv", "val", {"root": "scene"}, 299, 380),
        ("coco", "train", {"root": "coco_sample"}, 222, 755),
        ("coco", "train", {"root": "coco_sample", "keep_unannotated": True}, 223, 755),
        ("coco", "val", {"root": "coco_sample"}, 70, 248),
        ("voc", "trainval", {"root": "voc_layout_bccd/VOC2007"}, 292, 732),
        ("voc", "test", {"root": "voc_layout_bccd/VOC2007"}, 72, 176),
    ],
)
def test_reader_finds_every_image_and_label(reader, split, arguments, count, positives):
    records = READERS[reader](split, **arguments | {"root": DATA / arguments["root"]})
    assert (len(records), int(records.labels.sum())) == (count, positives)


@pytest.mark.parametrize(
    ("reader", "root"),
    [("csv", "scene"), ("coco", "coco_sample"), ("voc", "voc_layout_bccd/VOC2007")],
)
def test_every_photo_of_a_split_is_decoded(reader, root):
    records = READERS[reader]("val", root=DATA / root)
    preprocessing = Preprocessing(image_size=32)
    with eval_batches(records, preprocessing=preprocessing, batch_size=32) as batches:
        valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.sum() == len(records)


def test_no_augmented_photo_is_of_one_color():
    records = READERS["csv"]("train", root=DATA / "scene")
    augment = [partial(AUGMENTATIONS["cutout"], factor=0.5), AUGMENTATIONS["randaugment"]]
    preprocessing = Preprocessing(image_size=64)
    with train_batches(
        records, preprocessing=preprocessing, augment=augment, batch_size=32, seed=0
    ) as batches:
        images = next(batches)["images"]
    assert images.std(axis=(1, 2, 3)).min() > 2
