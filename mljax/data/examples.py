"""One example: an image file or array to what a batch has of it."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from PIL import Image

from mljax.config.schema import Preprocessing
from mljax.data.images import read_image, resize_image
from mljax.data.pixel_cache import PixelCache
from mljax.data.records import image_name

Augmentation = Callable[[Image.Image, np.random.Generator], Image.Image]

# A record number (-1: padding), its resized pixels (None: padding, or a skipped bad image), and
# whether there is something to say of how they were read.
Example = tuple[int, np.ndarray | None, bool]


@dataclass(frozen=True)
class Load:
    """Record number to example: decode, crop, resize, augment."""

    images: Sequence[str] | Sequence[bytes] | np.ndarray
    preprocessing: Preprocessing
    _: KW_ONLY
    crop: Augmentation | None = None
    augment: tuple[Augmentation, ...] = ()
    views: int = 1
    bad_images: str
    max_pixels: int
    cache: PixelCache | None = None

    def __call__(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Returns an example; with a generator one that is cropped and augmented.

        Raises:
          ValueError: for an image that cannot be read, with its name, where such images `fail`.
        """
        if index >= len(self.images):
            return -1, None, False
        source, note = self.images[index], ""
        try:
            if isinstance(source, np.ndarray):
                image = Image.fromarray(source)
            else:
                name = image_name(source, index)
                is_cropped = rng is not None and self.crop is not None
                image, note = self._read(source, name, whole=is_cropped)
        except ValueError:
            if self.bad_images == "skip":
                return index, None, False
            raise
        if rng is None:
            pixels = np.asarray(resize_image(image, self.preprocessing))
        elif self.views == 1:
            pixels = self._draw(image, rng)
        else:
            # One generator for all of them: with one each, equal seeds would give equal views.
            pixels = np.stack([self._draw(image, rng) for _ in range(self.views)])
        return index, pixels, bool(note)

    def _read(self, source: str | bytes, name: str, *, whole: bool) -> tuple[Image.Image, str]:
        """Returns an image, as large as the file or as it is used, and a note on its values."""
        cache = None if whole else self.cache
        path = cache and cache.path(source)
        if cache and path and (pixels := cache.read(path)) is not None:
            return Image.fromarray(pixels), ""
        enough = self.preprocessing.height_width if self.preprocessing.draft and not whole else None
        image, note = read_image(source, name=name, max_pixels=self.max_pixels, enough=enough)
        # A note is made anew each time, since there is no place for it.
        if cache and path and not note:
            pixels = np.asarray(resize_image(image, self.preprocessing))
            cache.keep(path, pixels)
            # Without the file's metadata, as it is read from the cache.
            image = Image.fromarray(pixels)
        return image, note

    def _draw(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        if self.crop is not None:
            image = self.crop(image, rng)
        image = resize_image(image, self.preprocessing)
        for transform in self.augment:
            image = transform(image, rng)
        return np.asarray(image)


def collate_examples(
    examples: Sequence[Example], *, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns record numbers `[b]`, validity and notes `[b]`, and pixels uint8 `[b, *size, 3]`."""
    index = np.array([index for index, _, _ in examples], np.int32)
    valid = np.array([pixels is not None for _, pixels, _ in examples])
    noted = np.array([noted for _, _, noted in examples])
    stacked = np.empty((len(examples), *size, 3), np.uint8)
    for row, (_, pixels, _) in enumerate(examples):
        stacked[row] = 0 if pixels is None else pixels
    return index, valid, noted, stacked
