"""Readers of data sets on disk, augmentation, and the pipeline that makes batches of them."""

from mljax.config.part import table
from mljax.data import partial
from mljax.data.augment import (
    color_jitter,
    cutout,
    horizontal_flip,
    multi_scale_crop,
    randaugment,
    random_affine,
    random_gray,
    random_resized_crop,
)
from mljax.data.readers import (
    adp,
    chest_xray,
    cifar,
    class_folders,
    coco,
    digits,
    image_csv,
    json_lists,
    lvis,
    numbered_lists,
    nus_wide,
    nus_wide_zsl,
    open_images,
    open_images_table,
    tfds,
    vg500,
    voc,
    voc_csv,
)

READERS = table(
    "reader",
    {
        "digits": digits.digits,
        "cifar10": cifar.cifar10,
        "cifar100": cifar.cifar100,
        "class_folders": class_folders.class_folders,
        "csv": image_csv.csv_table,
        "json_lists": json_lists.json_lists,
        "numbered_lists": numbered_lists.numbered_lists,
        "coco": coco.coco,
        "voc": voc.voc,
        "voc_csv": voc_csv.voc_csv,
        "adp": adp.adp,
        "chest_xray": chest_xray.chest_xray,
        "open_images": open_images.open_images,
        "open_images_table": open_images_table.open_images_table,
        "lvis": lvis.lvis,
        "tfds": tfds.tfds,
        "nus_wide": nus_wide.nus_wide,
        "nus_wide_zsl": nus_wide_zsl.nus_wide_zsl,
        "vg500": vg500.vg500,
        "partial": partial.partial,
    },
)

AUGMENTATIONS = table(
    "augmentation",
    {
        "cutout": cutout,
        "randaugment": randaugment,
        "horizontal_flip": horizontal_flip,
        "random_affine": random_affine,
        "random_resized_crop": random_resized_crop,
        "multi_scale_crop": multi_scale_crop,
        "color_jitter": color_jitter,
        "random_gray": random_gray,
    },
)
