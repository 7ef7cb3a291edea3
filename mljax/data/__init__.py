"""Readers of data sets on disk, augmentation, and the pipeline that makes batches of them."""

from mljax.data import partial
from mljax.data.augment import cutout, geometry, randaugment
from mljax.data.readers import (
    adp,
    chest_xray,
    coco,
    digits,
    image_csv,
    lvis,
    nus_wide_zsl,
    open_images,
    open_images_table,
    tfds,
    voc,
    voc_csv,
)

READERS = {
    "digits": digits.digits,
    "csv": image_csv.csv_table,
    "coco": coco.coco,
    "voc": voc.voc,
    "voc_csv": voc_csv.voc_csv,
    "adp": adp.adp,
    "chest_xray": chest_xray.chest_xray,
    "open_images": open_images.open_images,
    "open_images_table": open_images_table.open_images_table,
    "lvis": lvis.lvis,
    "tfds": tfds.tfds,
    "nus_wide_zsl": nus_wide_zsl.nus_wide_zsl,
    "partial": partial.partial,
}

AUGMENTATIONS = {
    "cutout": cutout.cutout,
    "randaugment": randaugment.randaugment,
    "horizontal_flip": geometry.horizontal_flip,
    "random_affine": geometry.random_affine,
}
