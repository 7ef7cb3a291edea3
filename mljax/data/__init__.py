"""Readers of data sets on disk, augmentation, and the pipeline that makes batches of them."""

from mljax.data.augment import cutout, horizontal_flip, randaugment, random_affine
from mljax.data.coco import coco
from mljax.data.digits import digits
from mljax.data.image_csv import csv_table
from mljax.data.voc import voc

READERS = {
    "digits": digits,
    "csv": csv_table,
    "coco": coco,
    "voc": voc,
}

AUGMENTATIONS = {
    "cutout": cutout,
    "randaugment": randaugment,
    "horizontal_flip": horizontal_flip,
    "random_affine": random_affine,
}
