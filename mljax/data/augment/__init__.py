"""Changes of a training image, drawn anew each time: `augment(image, rng, **kwargs) -> image`."""

from mljax.data.augment.cutout import cutout
from mljax.data.augment.geometry import horizontal_flip, random_affine
from mljax.data.augment.randaugment import randaugment

__all__ = ["cutout", "horizontal_flip", "randaugment", "random_affine"]
