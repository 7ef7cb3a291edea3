"""Readers of data sets on disk, augmentation, and the pipeline that makes batches of them."""

from mljax.data.digits import digits

READERS = {"digits": digits}

AUGMENTATIONS = {}
