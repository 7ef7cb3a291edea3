"""Batches from records: decoded, augmented, stacked, by grain.

Every random choice is a function of the seed and of an example's position in the endless stream
of training examples. So a batch depends on (seed, step) alone: not on the number of workers or
hosts, nor on where the run was resumed.
"""

import contextlib
import errno
import functools
import gc
import os
import re
import signal
import traceback
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from mljax.config.schema import MAX_PIXELS, Preprocessing
from mljax.data.deep_images import DeepImages
from mljax.data.examples import Augmentation, Example, Load, collate_examples
from mljax.data.images import read_image
from mljax.data.pixel_cache import PixelCache
from mljax.data.records import Records, image_name
from mljax.data.worker_memory import MEMORY, begin_worker, memory_token
from mljax.devices.cpus import count_cpus

# Examples in a run without end. grain's own infinity is too large for its floating-point division.
_ENDLESS = 2**50

# Image files that take about as long to read as a worker to start.
_FILES = 500


class Batches(Iterator[dict[str, np.ndarray]]):
    """An iterator over batches that ends its threads and processes when it is closed.

    It closes itself at its end, at an error, and when it is no longer used; close it early with
    `close()` or by using it in a `with`. What workers hand over is copied here, so no memory that
    is shared with a worker ever leaves this class.
    """

    def __init__(
        self,
        dataset: grain.IterDataset,
        records: Records,
        *,
        num_workers: int,
        max_pixels: int,
        deep_images: DeepImages | None,
        with_ignored: bool,
    ) -> None:
        self._records = records
        self._max_pixels = max_pixels
        self._counts_itself = deep_images is None
        self._deep_images = DeepImages() if deep_images is None else deep_images
        self._is_shared = num_workers > 0
        self._with_ignored = with_ignored
        try:
            self._reader = _Reader(iter(dataset), num_workers)
        except OSError as error:
            if not num_workers:
                raise
            raise _of_workers(error, num_workers) from error
        # Unlike `__del__`, this runs before the interpreter takes grain's modules apart.
        self._close = weakref.finalize(self, self._reader.close)

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._close.alive:
            raise StopIteration
        try:
            index, valid, noted, pixels = self._reader.read()
        except BaseException:
            self.close()
            raise
        self._note(index[noted].tolist())
        batch = {
            "images": np.array(pixels) if self._is_shared else pixels,
            "labels": np.zeros((len(index), len(self._records.class_names)), np.float32),
            "valid": np.array(valid),
            "index": np.array(index),
        }
        ignored = self._records.ignored if self._with_ignored else None
        if ignored is not None:
            batch["ignored"] = np.zeros(batch["labels"].shape, bool)
        for row in np.flatnonzero(valid):
            batch["labels"][row] = self._records.labels[index[row]]
            if ignored is not None:
                batch["ignored"][row] = ignored[index[row]]
        return batch

    def close(self) -> None:
        """Ends the iteration and the workers. Closing twice is harmless."""
        self._close()
        if self._counts_itself:
            self._deep_images.close()

    def _note(self, indices: Sequence[int]) -> None:
        for index in indices:
            source = self._records.images[index]
            name = image_name(source, index)
            if name not in self._deep_images and not isinstance(source, np.ndarray):
                # The text stays where the image was read, which may be another process.
                note = read_image(source, name=name, max_pixels=self._max_pixels)[1]
                self._deep_images.add(name, note)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Reader:
    """grain's iterator, and what it takes to stop its processes and free their memory."""

    def __init__(self, iterator: grain.DatasetIterator, num_workers: int) -> None:
        self._iterator = iterator
        self._num_workers = num_workers
        self._unasked_workers = num_workers

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        self._unasked_workers -= 1
        try:
            return next(self._iterator)
        except Exception as error:
            if not self._num_workers:
                raise
            # The frames in the traceback hold a batch in shared memory: keep their text alone.
            if not isinstance(error, StopIteration):
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
            raise _of_workers(error.with_traceback(None), self._num_workers) from None

    def close(self) -> None:
        # grain loses sight of a worker that was never asked for a batch: it would outlive us.
        while self._unasked_workers > 0:
            with contextlib.suppress(Exception):
                self.read()
        self._iterator.close()
        del self._iterator
        if self._num_workers:
            # grain's frames and errors refer to each other, and to a batch in shared memory.
            gc.collect()


def train_batches(
    records: Records,
    *,
    preprocessing: Preprocessing,
    crop: Augmentation | None = None,
    augment: Sequence[Augmentation] = (),
    views: int = 1,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_workers: int | None = 0,
    bad_images: str = "fail",
    max_pixels: int = MAX_PIXELS,
    cache: str | None = None,
    deep_images: DeepImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns endless training batches, shuffled anew each epoch.

    The epochs follow each other without a gap, so a batch may hold the end of one and the start
    of the next, and no example is ever dropped.

    Args:
      records: the training split.
      preprocessing: the size of the images.
      crop: applied to each image before it is resized.
      augment: applied in order to each resized image.
      views: how often each image is cropped and augmented, independently.
      batch_size: examples per batch over all hosts.
      seed: of the order and the augmentation.
      start_step: batches to leave out at the start, at no cost.
      num_workers: processes that prepare batches; 0 uses threads of this process. None takes as
        many as there are CPUs, but no more than one for every 500 image files.
      bad_images: `fail` raises with the file's name; `skip` makes the row invalid.
      max_pixels: width times height of the largest image that is decoded; a larger one is bad.
      cache: a folder for resized images, see `PixelCache`. With `crop` none is kept.
      deep_images: takes those whose values were scaled by a guess; None counts them by itself.
      process_index: which host this is, from 0.
      process_count: how many hosts there are; host p gets the p-th of the equal, contiguous
        slices of each batch.

    Returns:
      Batches of b = batch_size / process_count rows: `images` uint8 `[b, h, w, 3]`, or of
      several views `[b, v, h, w, 3]`, `labels`
      float32 `[b, k]`, `valid` bool `[b]`, `index` int32 `[b]` (the row's record). Rows that are
      not valid are zeros. The images are normalized on the devices, by `normalize_pixels`.

    Raises:
      ValueError: if the arguments do not fit together; while iterating, at a bad image.
      OSError: while iterating, if a resized image cannot be kept.
    """
    num_workers = _as_many_as_help(records) if num_workers is None else num_workers
    _check(batch_size, num_workers, bad_images, process_index, process_count)
    if start_step < 0:
        raise ValueError(f"start_step: got {start_step}, expected 0 or more")
    order_seed, augment_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
    if views < 1:
        raise ValueError(f"views: got {views}, expected 1 or more")
    load = Load(
        records.images,
        preprocessing,
        crop=crop,
        augment=tuple(augment),
        views=views,
        bad_images=bad_images,
        max_pixels=max_pixels,
        cache=_pixel_cache(cache, preprocessing, max_pixels),
    )
    examples = (
        grain.MapDataset.range(len(records))
        .shuffle(seed=order_seed)
        .repeat(_ENDLESS // len(records))
        .random_map(load, seed=augment_seed)
    )
    rows = _HostRows(examples, batch_size, process_index, process_count)
    size = preprocessing.height_width
    collate = functools.partial(collate_examples, size=size if views == 1 else (views, *size))
    batches = rows.batch(batch_size // process_count, batch_fn=collate)
    iterable = _prefetch(batches[start_step:], num_workers)
    return Batches(
        iterable,
        records,
        num_workers=num_workers,
        max_pixels=max_pixels,
        deep_images=deep_images,
        with_ignored=False,
    )


def eval_batches(
    records: Records,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    num_workers: int | None = 0,
    bad_images: str = "fail",
    max_pixels: int = MAX_PIXELS,
    cache: str | None = None,
    deep_images: DeepImages | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Returns each record once, in order; the last batch is padded with invalid rows.

    The arguments are those of `train_batches`, and so are the batches. Padding has index -1. If
    the records have an `ignored` mask, the batches have it too: bool `[b, k]`. Every host gets
    the same number of batches.

    Raises:
      ValueError: if the arguments do not fit together; while iterating, at a bad image.
      OSError: while iterating, if a resized image cannot be kept.
    """
    num_workers = _as_many_as_help(records) if num_workers is None else num_workers
    _check(batch_size, num_workers, bad_images, process_index, process_count)
    num_batches = -(-len(records) // batch_size)
    load = Load(
        records.images,
        preprocessing,
        bad_images=bad_images,
        max_pixels=max_pixels,
        cache=_pixel_cache(cache, preprocessing, max_pixels),
    )
    examples = grain.MapDataset.range(num_batches * batch_size).map(load)
    rows = _HostRows(examples, batch_size, process_index, process_count)
    collate = functools.partial(collate_examples, size=preprocessing.height_width)
    iterable = _prefetch(rows.batch(batch_size // process_count, batch_fn=collate), num_workers)
    return Batches(
        iterable,
        records,
        num_workers=num_workers,
        max_pixels=max_pixels,
        deep_images=deep_images,
        with_ignored=True,
    )


def _pixel_cache(
    folder: str | None, preprocessing: Preprocessing, max_pixels: int
) -> PixelCache | None:
    # `Path.expanduser` raises RuntimeError where nobody has the name behind the tilde.
    if folder is None:
        return None
    return PixelCache(Path(os.path.expanduser(folder)), preprocessing, max_pixels)


def _as_many_as_help(records: Records) -> int:
    """Returns the number of workers where none is chosen; images in memory need none."""
    in_memory = isinstance(records.images, np.ndarray)
    return 0 if in_memory else min(count_cpus(), len(records) // _FILES)


def _check(
    batch_size: int, num_workers: int, bad_images: str, process_index: int, process_count: int
) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size: got {batch_size}, expected a positive multiple of the number of hosts, "
            f"{process_count}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index: got {process_index}, expected 0 to {process_count - 1}")
    if num_workers < 0:
        raise ValueError(f"num_workers: got {num_workers}, expected 0 or more")
    if bad_images not in ("fail", "skip"):
        raise ValueError(f"bad_images: got {bad_images!r}, expected 'fail' or 'skip'")


def _prefetch(batches: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    if num_workers:
        # grain reads absl's flags when it starts a process, and absl refuses unparsed ones.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        serial = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        workers = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
        begin = functools.partial(begin_worker, parent=os.getpid(), token=memory_token())
        return serial.mp_prefetch(workers, worker_init_fn=begin)
    # Pillow and numpy release the interpreter lock. Whole batches wait in memory: few threads.
    threads = min(4, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return batches.to_iter_dataset(options)


def _of_workers(error: Exception, num_workers: int) -> Exception:
    """Returns an error of data workers as one that says what happened to them."""
    killed = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
    code = int(killed[1]) if killed else 0
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if full or code == -signal.SIGBUS:
        # Writing to a file in a full memory file system ends a process by this signal.
        return OSError(
            errno.ENOSPC,
            f"no room for the batches of the data workers: lower data.num_workers ({num_workers}), "
            "or give it more, as by docker run --shm-size=8g",
            str(MEMORY),
        )
    if not killed:
        return error
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return ChildProcessError(
        f"a data worker ended {how} (data.num_workers={num_workers}). SIGKILL often means that "
        "memory ran out: lower data.num_workers or data.batch_size"
    )


class _HostRows(grain.MapDataset[Example]):
    """One host's contiguous rows of each global batch.

    It stands after the augmentation, which so is seeded by an example's global position.
    """

    def __init__(
        self,
        parent: grain.MapDataset[Example],
        batch_size: int,
        process_index: int,
        process_count: int,
    ) -> None:
        super().__init__(parent)
        self._batch_size = batch_size
        self._rows = batch_size // process_count
        self._first = process_index * self._rows

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * self._rows

    def __getitem__(self, index: int | slice) -> Any:  # noqa: ANN401
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._rows)
        return self._parent[batch * self._batch_size + self._first + row]
