"""Changes of a training image, drawn anew each time: `augment(image, rng, **kwargs) -> image`."""

from mljax.data.augment.color import color_jitter, random_gray
from mljax.data.augment.crop import multi_scale_crop, random_resized_crop
from mljax.data.augment.cutout import cutout
from mljax.data.augment.geometry import horizontal_flip, random_affine
from mljax.data.augment.randaugment import randaugment

__all__ = [
    "color_jitter",
    "cutout",
    "horizontal_flip",
    "multi_scale_crop",
    "randaugment",
    "random_affine",
    "random_gray",
    "random_resized_crop",
]
