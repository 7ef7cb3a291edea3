"""Readers of data sets on disk, augmentation, and the pipeline that makes batches of them."""

from mljax.data import augment, coco, digits, image_csv, partial, voc

READERS = {
    "digits": digits.digits,
    "csv": image_csv.csv_table,
    "coco": coco.coco,
    "voc": voc.voc,
    "partial": partial.partial,
}

AUGMENTATIONS = {
    "cutout": augment.cutout,
    "randaugment": augment.randaugment,
    "horizontal_flip": augment.horizontal_flip,
    "random_affine": augment.random_affine,
}
